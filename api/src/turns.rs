//! Who may read from PostgreSQL now, which counts meanwhile.
//!
//! A tenant has one turn at a time, and waits for that without taking a place from anybody. A place that becomes free
//! goes to the tenant that used the least time, not to the one that asks the most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flagmeter_core::event::TenantName;
use foldhash::HashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Readings at once. Each takes a connection, and up to a core.
const AT_ONCE: usize = 2;

/// Requests of one tenant that wait at most; more are refused at once.
const WAITING: usize = 8;

/// Requests of all tenants that wait at most. Beyond that the tenant that has the most waiting gives one up.
const ALL_WAITING: usize = 256;

/// How far a tenant that asks now and then is ahead of those that ask all the time: by a long reading of theirs.
const CREDIT: Duration = Duration::from_secs(8);

/// Tenants that are remembered while they ask for nothing.
const REMEMBERED: usize = 1_024;

/// Turns at one kind of reading.
pub(crate) struct Turns {
    desk: Desk,
    patience: Duration,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    desk: Desk,
    tenant: TenantName,
    begun: Instant,
}

/// Where turns are given out.
#[derive(Clone, Default)]
struct Desk(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    taken: usize,
    waiting: usize,
    /// Requests that ever waited: which was first.
    arrivals: u64,
    /// What the tenant had used that was served last: nobody who waits has used much less.
    level: Duration,
    tenants: HashMap<TenantName, Own>,
}

/// What is known of one tenant.
#[derive(Default)]
struct Own {
    reads: bool,
    /// The time of its turns, so far as it is held against it.
    used: Duration,
    line: VecDeque<Waiting>,
}

struct Waiting {
    arrival: u64,
    turn: oneshot::Sender<Turn>,
}

impl Turns {
    /// Turns for which a request waits for at most `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { desk: Desk::default(), patience }
    }

    /// Waits for a turn of `tenant`; `None` if it takes too long to come, or too many of its requests wait already.
    pub(crate) async fn take(&self, tenant: &TenantName) -> Option<Turn> {
        let turn = self.desk.ask(tenant)?;
        tokio::time::timeout(self.patience, turn).await.ok()?.ok()
    }
}

impl Desk {
    /// A place in the tenant's line, whose turn may have come already.
    fn ask(&self, tenant: &TenantName) -> Option<oneshot::Receiver<Turn>> {
        let (turn, comes) = oneshot::channel();
        self.queue().line_up(tenant, turn)?;
        self.serve();
        Some(comes)
    }

    /// Gives free places to those who wait.
    fn serve(&self) {
        loop {
            // Not while the queue is locked: a turn that nobody waits for any longer ends here.
            let Some((tenant, turn)) = self.queue().next() else { return };
            let _ = turn.send(Turn { desk: self.clone(), tenant, begun: Instant::now() });
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while it was held leaves lines that are all the same.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.desk.queue().end(&self.tenant, self.begun.elapsed());
        self.desk.serve();
    }
}

impl Own {
    /// Takes those out of the line who wait no longer; answers how many that were.
    fn forget_the_gone(&mut self) -> usize {
        let before = self.line.len();
        self.line.retain(|waiting| !waiting.turn.is_closed());
        before - self.line.len()
    }
}

impl Queue {
    fn line_up(&mut self, tenant: &TenantName, turn: oneshot::Sender<Turn>) -> Option<()> {
        let least = self.level.saturating_sub(CREDIT);
        let own = self.tenants.entry(tenant.clone()).or_default();
        self.waiting -= own.forget_the_gone();
        if own.line.len() >= WAITING {
            return None;
        }
        if !own.reads && own.line.is_empty() {
            own.used = own.used.max(least);
        }
        let length = own.line.len();
        if self.waiting >= ALL_WAITING {
            self.make_room(length)?;
        }
        self.arrivals += 1;
        self.waiting += 1;
        let waiting = Waiting { arrival: self.arrivals, turn };
        self.tenants.entry(tenant.clone()).or_default().line.push_back(waiting);
        Some(())
    }

    /// Forgets those who have gone away; if there are none, takes the newest from the longest line, unless one more
    /// would make the line of `own` as long.
    fn make_room(&mut self, own: usize) -> Option<()> {
        for tenant in self.tenants.values_mut() {
            tenant.forget_the_gone();
        }
        self.waiting = self.tenants.values().map(|tenant| tenant.line.len()).sum();
        if self.waiting >= ALL_WAITING {
            let longest = self.tenants.values_mut().max_by_key(|tenant| tenant.line.len())?;
            if longest.line.len() <= own + 1 {
                return None;
            }
            longest.line.pop_back()?;
            self.waiting -= 1;
        }
        Some(())
    }

    /// The next in turn, if there is a place.
    fn next(&mut self) -> Option<(TenantName, oneshot::Sender<Turn>)> {
        if self.taken >= AT_ONCE {
            return None;
        }
        let waits = |own: &Own| Some((own.used, own.line.front().filter(|_| !own.reads)?.arrival));
        let all = self.tenants.iter_mut().filter_map(|(tenant, own)| Some((waits(own)?, tenant, own)));
        let (_, tenant, own) = all.min_by_key(|(place, ..)| *place)?;
        let Waiting { turn, .. } = own.line.pop_front()?;
        own.reads = true;
        let next = (tenant.clone(), turn);
        self.level = self.level.max(own.used);
        self.taken += 1;
        self.waiting -= 1;
        Some(next)
    }

    fn end(&mut self, tenant: &TenantName, took: Duration) {
        self.taken -= 1;
        if let Some(own) = self.tenants.get_mut(tenant) {
            own.reads = false;
            own.used += took;
        }
        if self.tenants.len() > REMEMBERED {
            self.tenants.retain(|_, own| own.reads || !own.line.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(9);

    fn name(name: &str) -> TenantName {
        name.try_into().unwrap()
    }

    fn turns() -> Turns {
        Turns::new(PATIENCE)
    }

    /// The turn that has come by now, if it has.
    fn come(waiting: &mut oneshot::Receiver<Turn>) -> Option<Turn> {
        waiting.try_recv().ok()
    }

    #[tokio::test]
    async fn a_tenant_waits_for_itself_before_it_takes_a_place_from_another() {
        let turns = turns();
        let ask = |tenant: &str| turns.desk.ask(&name(tenant)).unwrap();
        let first = come(&mut ask("acme")).unwrap();
        let mut second = ask("acme");
        assert!(come(&mut second).is_none());
        let other = come(&mut ask("globex")).unwrap();
        let mut third = ask("initech");
        assert!(come(&mut third).is_none());
        drop(other);
        assert!(come(&mut third).is_some());
        drop(first);
        assert!(come(&mut second).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_place_goes_to_the_tenant_that_used_the_least() {
        let turns = turns();
        let ask = |tenant: &str| turns.desk.ask(&name(tenant)).unwrap();
        // Four read for eight seconds each, again and again; the fifth for a moment, now and then.
        let mut busy: Vec<_> = (0..4).map(|number| (number, ask(&format!("busy-{number}")))).collect();
        let mut served = [0; 4];
        for round in 0..100 {
            let mut reading = Vec::new();
            for (number, waiting) in &mut busy {
                if let Some(turn) = come(waiting) {
                    served[*number] += 1;
                    reading.push((*number, turn));
                }
            }
            assert_eq!(reading.len(), 2);
            for (number, _) in &reading {
                busy[*number].1 = ask(&format!("busy-{number}"));
            }
            // At first nobody has used anything.
            let seldom = (round >= 2).then(|| ask("seldom"));
            tokio::time::advance(Duration::from_secs(8)).await;
            drop(reading.pop());
            // One reading of another later it has its turn, however many wait.
            drop(seldom.map(|mut waiting| come(&mut waiting).expect("it is next")));
            drop(reading);
        }
        assert_eq!(served.iter().sum::<i32>(), 200);
        assert!(served.iter().all(|turns| (49..=51).contains(turns)), "{served:?}");
    }

    #[tokio::test]
    async fn what_waits_is_bounded_for_a_tenant_and_in_all_and_the_longest_line_gives_way() {
        let turns = turns();
        let ask = |tenant: usize| turns.desk.ask(&name(&format!("t{tenant}")));
        let _reading = [0, 1].map(|tenant| come(&mut ask(tenant).unwrap()).unwrap());
        let mut lines: Vec<Vec<_>> = Vec::new();
        for tenant in 0..ALL_WAITING / WAITING {
            lines.push((0..WAITING).map(|_| ask(tenant).unwrap()).collect());
            assert!(ask(tenant).is_none(), "one more of {tenant}");
        }
        // Others find room all the same, until every line is as short as theirs.
        let mut others: Vec<_> =
            (100..100 + ALL_WAITING - lines.len()).map(|tenant| ask(tenant).unwrap()).collect();
        assert!(ask(99).is_none());
        assert_eq!(turns.desk.queue().waiting, ALL_WAITING);
        let is_given_up = |waiting: &mut oneshot::Receiver<Turn>| {
            waiting.try_recv().err() == Some(oneshot::error::TryRecvError::Closed)
        };
        let given_up =
            |line: &mut Vec<_>| line.iter_mut().map(is_given_up).filter(|given_up| *given_up).count();
        assert!(lines.iter_mut().all(|line| given_up(line) == WAITING - 1));
        assert_eq!(given_up(&mut others), 0);
        // Those who have gone away hold no place in it.
        drop((lines, others));
        assert!(ask(0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_told_so_and_leaves_its_place() {
        let turns = turns();
        let (acme, globex) =
            (turns.take(&name("acme")).await.unwrap(), turns.take(&name("globex")).await.unwrap());
        let start = Instant::now();
        assert!(turns.take(&name("initech")).await.is_none());
        assert_eq!(start.elapsed(), PATIENCE);
        drop(acme);
        // The place is free, and not of the one who left.
        let hooli = turns.take(&name("hooli")).await.unwrap();
        drop((globex, hooli));
        let queue = turns.desk.queue();
        assert_eq!((queue.taken, queue.waiting), (0, 0));
    }
}
