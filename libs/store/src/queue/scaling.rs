//! What scaling needs of the queue: a sample of all its numbers, and a place for what was decided.

use std::collections::BTreeMap;

use deadpool_redis::redis;
use flagmeter_core::scaling::sample::{Queue, Work};

use super::{EventQueue, GROUP, LEFT, PUSHED, WORKER};
use crate::StoreError;

/// Beside the stream: samples and decisions, the newest first.
const RECORDS: &str = "scaling:records";

/// Beside the stream: the policy that decided last.
const POLICY: &str = "scaling:policy";

/// Beside the stream: what the next process that decides should know.
const STATE: &str = "scaling:state";

/// Everything in one script, so that all numbers are of one instant. A stream that was never written to, and a
/// group that no worker has made yet, count as empty.
const SAMPLE: &str = "
    local function field(reply, name)
        for i = 1, #reply, 2 do
            if reply[i] == name then return reply[i + 1] end
        end
    end
    local function text(number)
        return number and string.format('%.0f', number) or ''
    end
    local added, pending, lag, oldest = 0, 0, nil, ''
    local stream = redis.pcall('XINFO', 'STREAM', KEYS[1])
    if not stream.err then
        added = field(stream, 'entries-added')
        local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
        oldest = first and first[1] or ''
    end
    local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
    for _, group in ipairs(groups.err and {} or groups) do
        if field(group, 'name') == ARGV[1] then
            pending, lag = field(group, 'pending'), field(group, 'lag')
        end
    end
    local now = redis.call('TIME')
    local sample = {
        redis.call('GET', KEYS[2]) or '0',
        redis.call('GET', KEYS[3]) or '0',
        text(redis.call('XLEN', KEYS[1])),
        text(added), text(pending), text(lag), oldest,
        now[1] .. string.format('%03d', math.floor(now[2] / 1000)),
    }
    local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
    for _, consumer in ipairs(consumers.err and {} or consumers) do
        local name = field(consumer, 'name')
        local said = redis.call('GET', ARGV[2] .. name)
        if said then
            sample[#sample + 1] = name
            sample[#sample + 1] = said
        end
    end
    return sample";

/// What is kept of scaling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scaling {
    /// The policy that decided last.
    pub policy: Option<String>,
    /// What the next process that decides should know.
    pub state: Option<String>,
    /// Samples and decisions, the newest first.
    pub records: Vec<String>,
}

impl EventQueue {
    /// All the queue's numbers, of one instant: what a decision about workers rests on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`], also if an answer is no number.
    pub async fn sample(&self) -> Result<Queue, StoreError> {
        let doing = "sample the queue";
        let mut connection = self.connection(doing).await?;
        let script = redis::Script::new(SAMPLE);
        let mut call = script.key(&self.stream);
        call.key(self.beside(PUSHED)).key(self.beside(LEFT));
        call.arg(GROUP).arg(self.beside(&format!("{WORKER}:")));
        let answer: redis::RedisResult<Vec<String>> = call.invoke_async(&mut connection).await;
        let answer = self.checked(doing, answer)?;
        read(&answer).ok_or_else(|| {
            let wrong = (redis::ErrorKind::UnexpectedReturnType, "the queue's numbers are none");
            StoreError::queue(doing)(wrong.into())
        })
    }

    /// Keeps a record of a decision, of which the `most` newest stay, with the policy that made it and what the
    /// next process should know.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`]; whether it was kept is then not known.
    pub async fn keep_scaling(
        &self,
        policy: &str,
        state: &str,
        record: &str,
        most: usize,
    ) -> Result<(), StoreError> {
        let doing = "keep a scaling decision";
        let mut connection = self.connection(doing).await?;
        let newest = isize::try_from(most).unwrap_or(isize::MAX).saturating_sub(1);
        let mut all = redis::pipe();
        all.atomic();
        all.set(self.beside(POLICY), policy).ignore();
        all.set(self.beside(STATE), state).ignore();
        all.lpush(self.beside(RECORDS), record).ignore();
        all.ltrim(self.beside(RECORDS), 0, newest).ignore();
        let kept: redis::RedisResult<()> = all.query_async(&mut connection).await;
        self.checked(doing, kept)
    }

    /// What [`EventQueue::keep_scaling`] kept: at most so many of the newest records.
    ///
    /// # Errors
    ///
    /// [`StoreError::Queue`].
    pub async fn scaling(&self, newest: usize) -> Result<Scaling, StoreError> {
        let doing = "look for the scaling decisions";
        let mut connection = self.connection(doing).await?;
        let last = isize::try_from(newest).unwrap_or(isize::MAX).saturating_sub(1);
        let mut all = redis::pipe();
        all.get(self.beside(POLICY)).get(self.beside(STATE)).lrange(self.beside(RECORDS), 0, last);
        let answer: redis::RedisResult<(Option<String>, Option<String>, Vec<String>)> =
            all.query_async(&mut connection).await;
        let (policy, state, mut records) = self.checked(doing, answer)?;
        // The newest 0 would be all.
        records.truncate(newest);
        Ok(Scaling { policy, state, records })
    }
}

fn read(answer: &[String]) -> Option<Queue> {
    let (numbers, said) = answer.split_at_checked(8)?;
    let number = |index: usize| numbers[index].parse::<u64>().ok();
    let lag = if numbers[5].is_empty() { None } else { Some(number(5)?) };
    let now = number(7)?;
    // An entry's id starts with its milliseconds since 1970.
    let oldest = match numbers[6].split('-').next() {
        Some("") | None => now,
        Some(milliseconds) => milliseconds.parse().ok()?,
    };
    let workers: BTreeMap<String, Work> = said
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].clone(), serde_json::from_str(&pair[1]).ok()?)))
        .collect();
    Some(Queue {
        pushed: number(0)?,
        left: number(1)?,
        entries: number(2)?,
        entries_added: number(3)?,
        pending: number(4)?,
        lag,
        oldest_wait_seconds: std::time::Duration::from_millis(now.saturating_sub(oldest)).as_secs_f64(),
        workers,
    })
}
