//! Sends alerts: takes a message from the outbox, posts it, and writes what came of it.
//!
//! No transaction is open while a receiver is waited for: a message is leased
//! ([`flagmeter_store::postgres::deliveries`]). It is sent at least once; twice only if this worker dies, or loses PostgreSQL
//! for longer than the lease, between the receiver's answer and the commit that says so. To a webhook the second
//! has the same `webhook-id`.
//!
//! - [`line`] is where those wait whose turn it is not.
//! - [`message`] is what an alert says; [`slack`] and [`webhook`] are its forms, and what answers mean.
//! - [`post`] is one request to a URL that a tenant chose.

mod line;
mod message;
pub mod post;
mod slack;
mod webhook;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use flagmeter_core::delivery::{self, Attempt, GIVE_UP_AFTER, Next, Patience};
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::projection::{self, Projection, Recent};
use flagmeter_runtime::clock::Clock;
use flagmeter_store::postgres::deliveries::{self, Channel, Conclusion, Kind, Taken, Target};
use flagmeter_store::postgres::series;
use flagmeter_store::sealed::{Column, Sealer};
use flagmeter_store::{PgPool, StoreError, postgres};
use http::{HeaderName, HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use self::line::Line;
use self::message::Message;
use self::post::{Answer, Poster};
use self::webhook::Key;
use crate::metrics::Deliveries;

/// How long a message is one worker's. A request takes 10 seconds at most; the rest is for PostgreSQL to come back, so
/// that what came of it can be written.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);

/// What must be left of a lease for a message to be sent under it: a request and a bit.
const NEEDED: SignedDuration = SignedDuration::from_secs(15);

/// How long the usage of the last days may take to be read. A message without a projection is better than a late one.
const READING_LIMIT: Duration = Duration::from_secs(2);

/// The least time between two messages to one URL, from all workers together: what Slack asks for.
pub const PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// Messages that one worker has under way at most, so that a receiver that hangs does not hold up the others.
const AT_ONCE: usize = 8;

/// How often it looks whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long it waits after PostgreSQL did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long what is under way may take to end: a request, and a while for PostgreSQL to take what came of it. A pod that
/// is told to stop has 30 seconds.
pub const ENDING: Duration = Duration::from_secs(20);

/// How often the outbox is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Turns that passed so long ago are forgotten.
const TURNS_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A notifier, and what it needs.
pub struct Notifier {
    /// Connections of its own: nothing that counts waits for them.
    pub pool: PgPool,
    /// Opens URLs and secrets.
    pub sealer: Sealer,
    /// Sends.
    pub poster: Poster,
    /// Those who wait for their turn.
    pub line: Line,
    /// Says when it is.
    pub clock: Clock,
    /// What it counts about itself.
    pub metrics: Deliveries,
    /// Where the page is, without a slash at its end.
    pub public_url: Option<String>,
}

/// What an answer, or that there was none, means for the message.
struct Verdict {
    attempt: Attempt,
    /// For people, without anything secret; empty if it was taken.
    why: String,
}

impl Verdict {
    fn taken() -> Self {
        Self { attempt: Attempt::Taken, why: String::new() }
    }

    fn refused(why: &str) -> Self {
        Self { attempt: Attempt::Refused, why: why.to_owned() }
    }

    fn failed(why: &str) -> Self {
        Self { attempt: Attempt::Failed { retry_after: None }, why: why.to_owned() }
    }
}

/// What is needed to send a message, opened. It has no `Debug`: nothing of it may be printed.
struct Opened {
    url: String,
    /// By which its turns are known.
    fingerprint: String,
    keys: Vec<Key>,
}

impl Notifier {
    /// Sends what is due until `shutdown`. What is under way then may end for as long as `ending`.
    pub async fn run(self: Arc<Self>, shutdown: &CancellationToken, ending: Duration) {
        tokio::select! {
            () = self.wait_for_schema() => {}
            () = shutdown.cancelled() => return,
        }
        let measuring = async {
            loop {
                self.measure().await;
                sleep(MEASURE_EVERY).await;
            }
        };
        let mut under_way = JoinSet::new();
        tokio::select! {
            () = self.send_on(&mut under_way, shutdown) => {}
            () = measuring => {}
        }
        let end = async { while under_way.join_next().await.is_some() {} };
        if timeout(ending, end).await.is_err() {
            tracing::warn!("stopped before it was written what came of a message; it may be sent again");
        }
    }

    async fn wait_for_schema(&self) {
        // The drain says why it waits.
        while !postgres::is_migrated(&self.pool).await.unwrap_or(false) {
            sleep(AFTER_FAILURE).await;
        }
    }

    async fn send_on(self: &Arc<Self>, under_way: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
                () = sleep_until(look_at), if under_way.len() < AT_ONCE => {
                    look_at = match deliveries::take(&self.pool, self.clock.now(), LEASE).await {
                        Ok(Some(taken)) => {
                            let notifier = Arc::clone(self);
                            under_way.spawn(async move { notifier.deliver(taken).await });
                            Instant::now()
                        }
                        Ok(None) => Instant::now() + LOOK_EVERY,
                        Err(error) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "failed to look for alerts to send");
                            Instant::now() + AFTER_FAILURE
                        }
                    };
                }
            }
        }
    }

    /// Sends one message that is due, if there is one, and answers whether there was.
    ///
    /// # Errors
    ///
    /// [`StoreError::Postgres`]; nothing was sent.
    pub async fn send_one(&self) -> Result<bool, StoreError> {
        let Some(taken) = deliveries::take(&self.pool, self.clock.now(), LEASE).await? else {
            return Ok(false);
        };
        self.deliver(taken).await;
        Ok(true)
    }

    /// From a message that was taken to what came of it.
    async fn deliver(&self, taken: Taken) {
        let conclusion = match self.admit(&taken).await {
            Ok(opened) => self.send(&taken, &opened).await,
            Err(conclusion) => conclusion,
        };
        self.conclude(&taken, &conclusion).await;
    }

    /// Whether the message may go now: there is somebody to send it to, and it is the URL's turn. If not, what becomes
    /// of it.
    async fn admit(&self, taken: &Taken) -> Result<Opened, Conclusion> {
        let Some(target) = &taken.target else {
            let why = "the tenant has no such channel any more, or turned it off, or was deleted".to_owned();
            return Err(Conclusion::Skipped { why });
        };
        let opened = self.open(taken, target).map_err(|verdict| self.settle(taken, verdict))?;
        let now = self.clock.now();
        match deliveries::take_turn(&self.pool, &opened.fingerprint, now, PAUSE).await {
            Ok(Ok(())) => Ok(opened),
            Ok(Err(at)) => {
                let at = self.line.place(&opened.fingerprint, at);
                Err(if delivery::may_wait(taken.tried_since, at) {
                    Conclusion::PutBack { at }
                } else {
                    let why = "its receiver asked for rest, or others went first, until the day was over";
                    Conclusion::GivenUp { why: why.to_owned() }
                })
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    alert = taken.alert,
                    "failed to take a turn"
                );
                Err(Conclusion::PutBack { at: now + PAUSE })
            }
        }
    }

    /// The URL and the keys, in memory for as long as the message is under way.
    fn open(&self, taken: &Taken, target: &Target) -> Result<Opened, Verdict> {
        let open = |column, sealed: &[u8]| self.sealer.open(&taken.tenant, column, sealed);
        let url_column = match taken.channel {
            Channel::Slack => Column::SlackUrl,
            Channel::Webhook => Column::WebhookUrl,
        };
        let closed = || {
            Verdict::failed(
                "what is stored of the channel does not open with this worker's FLAGMETER_ENCRYPTION_KEY; the operator and the worker must have the same",
            )
        };
        let url = open(url_column, &target.url).ok_or_else(closed)?.trim().to_owned();
        let mut keys = Vec::new();
        if let Some(secret) = &target.secret {
            let key = Key::of(&open(Column::WebhookSecret, secret).ok_or_else(closed)?);
            keys.push(key.ok_or_else(|| {
                Verdict::refused("the webhook's secret is not `whsec_` and base64 of 24 to 64 bytes; correct it in its Secret")
            })?);
        }
        if let Some(former) = &target.previous_secret {
            // One that was sealed before the encryption key was changed: the receiver has the new secret by now, or soon.
            let key = open(Column::WebhookSecret, former).and_then(|secret| Key::of(&secret));
            if key.is_none() {
                tracing::warn!(
                    tenant.name = taken.tenant,
                    "the webhook's former secret does not open; signed with the new one alone"
                );
            }
            keys.extend(key);
        }
        // The same text for every tenant, so that all who share a channel share its turns.
        let fingerprint = self.sealer.fingerprint("", &url);
        Ok(Opened { url, fingerprint, keys })
    }

    /// When the quota will be used up, if that can be said.
    async fn exhaustion(&self, taken: &Taken) -> Option<Timestamp> {
        let now = self.clock.now();
        let period = BillingPeriod { start: taken.period_start, end: taken.period_end };
        if taken.kind != Kind::Crossed || !period.contains(now) {
            return None;
        }
        let days = projection::days(now);
        let sums = series::sums(&self.pool, &taken.tenant, None, &days, READING_LIMIT).await;
        let recent = Recent::new(now, &sums.ok()?);
        // What is told was used then, however long ago that is.
        let (used, then) = (taken.total_tokens, taken.created_at);
        Projection::of(used, &taken.quota, &period, Some(&recent), then).exhaustion().filter(|end| now < *end)
    }

    /// Sends a message whose turn it is.
    async fn send(&self, taken: &Taken, opened: &Opened) -> Conclusion {
        let exhaustion = self.exhaustion(taken).await;
        let now = self.clock.now();
        if taken.leased_until.duration_since(now) < NEEDED {
            // Whatever PostgreSQL took so long for, another worker may be about to take the message.
            return Conclusion::PutBack { at: now };
        }
        let message = Message { taken, now, exhaustion, public_url: self.public_url.as_deref() };
        let (headers, body) = compose(&message, &opened.keys, now);
        let answer = match self.poster.post(&opened.url, headers, body).await {
            Ok(answer) => answer,
            Err(fault) if fault.is_final() => {
                return self.settle(taken, Verdict::refused(&fault.to_string()));
            }
            Err(fault) => return self.settle(taken, Verdict::failed(&fault.to_string())),
        };
        let now = self.clock.now();
        let asked = answer.retry_after.as_deref().and_then(|asked| delivery::retry_after(asked, now));
        let mut verdict = judge(taken.channel, &answer);
        if let (Attempt::Failed { retry_after }, Some(asked)) = (&mut verdict.attempt, asked) {
            *retry_after = Some(asked);
            verdict.why = format!("{}, and asked to wait {} s", verdict.why, asked.as_secs());
        }
        let is_failed = matches!(verdict.attempt, Attempt::Failed { .. });
        let conclusion = self.settle(taken, verdict);
        let rest = match (&conclusion, asked) {
            (_, Some(asked)) if is_failed => Some(now + asked.min(GIVE_UP_AFTER)),
            (Conclusion::Again { at, .. }, None) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                Some(*at)
            }
            _ => None,
        };
        if let Some(until) = rest {
            self.hold(&opened.fingerprint, until).await;
        }
        conclusion
    }

    /// Lets all messages to a URL wait, whose receiver has asked for rest, or has had too many.
    async fn hold(&self, url: &str, until: Timestamp) {
        if let Err(error) = deliveries::hold(&self.pool, url, until).await {
            // This message waits all the same; others to the URL will be told so, too.
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to hold messages to a URL");
        }
    }

    /// Decides what happens next.
    fn settle(&self, taken: &Taken, verdict: Verdict) -> Conclusion {
        let now = self.clock.now();
        let patience = if taken.kind == Kind::Test { Patience::Once } else { Patience::Day };
        // Each RandomState has keys of its own, so the hash of nothing is a number of chance.
        let chance =
            f64::from(u32::try_from(RandomState::new().hash_one(()) % 1_000).unwrap_or_default()) / 1_000.0;
        let Verdict { attempt, why } = verdict;
        match delivery::next(attempt, patience, taken.attempts, taken.tried_since, now, chance) {
            Next::Delivered => Conclusion::Delivered(now),
            Next::Failed => Conclusion::Failed { why },
            Next::GivenUp if patience == Patience::Once => Conclusion::Failed { why },
            Next::GivenUp => Conclusion::GivenUp { why },
            Next::Again(wait) => Conclusion::Again { at: now + wait, why },
        }
    }

    /// Writes what came of a message, as long as the message is this worker's.
    async fn conclude(&self, taken: &Taken, conclusion: &Conclusion) {
        let begun = Instant::now();
        let mut wait = Duration::from_millis(100);
        loop {
            match deliveries::conclude(&self.pool, taken, conclusion).await {
                Ok(true) => break,
                Ok(false) => {
                    return tracing::warn!(alert = taken.alert, "another worker has the message by now");
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        alert = taken.alert,
                        "failed to write what came of a message"
                    );
                    if begun.elapsed() > LEASE.unsigned_abs() {
                        return;
                    }
                    sleep(wait).await;
                    wait = (wait * 2).min(AFTER_FAILURE);
                }
            }
        }
        self.metrics.ended(taken.channel, conclusion);
        let (alert, channel, attempts) = (taken.alert, taken.channel.as_str(), taken.attempts);
        let tenant = taken.tenant.as_str();
        macro_rules! say {
            ($level:ident, $($why:ident,)? $text:literal) => {
                tracing::$level!(tenant.name = tenant, alert, channel, attempts, $($why,)? $text)
            };
        }
        match conclusion {
            Conclusion::Delivered(_) => say!(info, "delivered an alert of {tenant}"),
            Conclusion::Failed { why } | Conclusion::GivenUp { why } => {
                say!(error, why, "failed to deliver an alert of {tenant}");
            }
            Conclusion::Again { why, .. } => say!(warn, why, "an alert of {tenant} is tried again"),
            Conclusion::Skipped { why } => say!(info, why, "an alert of {tenant} goes nowhere"),
            Conclusion::PutBack { .. } => {}
        }
    }

    /// Says how much waits, and forgets turns that are long past.
    async fn measure(&self) {
        let now = self.clock.now();
        match deliveries::backlog(&self.pool).await {
            Ok(backlog) => self.metrics.backlog(backlog, now),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "failed to measure the outbox");
            }
        }
        self.line.forget(now);
        if let Err(error) = deliveries::forget_turns(&self.pool, now - TURNS_KEPT).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to forget turns");
        }
    }
}

fn compose(message: &Message<'_>, keys: &[Key], now: Timestamp) -> (Vec<(HeaderName, HeaderValue)>, Vec<u8>) {
    match message.taken.channel {
        Channel::Slack => (Vec::new(), slack::body(message).to_string().into_bytes()),
        Channel::Webhook => {
            let body = webhook::body(message).to_string().into_bytes();
            (webhook::headers(message.taken.event_id, now, &body, keys), body)
        }
    }
}

/// What is said of a redirect.
fn redirected(status: u16) -> String {
    format!(
        "the receiver answered {status}, a redirect, which is not followed: edit the URL in the tenant's settings; put in \
         the one that it leads to, and send the alert again with `flagmeter alerts resend`"
    )
}

fn judge(channel: Channel, answer: &Answer) -> Verdict {
    match channel {
        Channel::Slack => slack::judge(answer),
        Channel::Webhook => webhook::judge(answer),
    }
}
