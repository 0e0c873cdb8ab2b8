//! The bound of what a billing period may hold, wherever it lies: a period that is over has it, too.
//!
//! A batch is written as if all of it fitted. Only where a period comes out beyond the bound is the batch begun again,
//! and its events are held against what their periods hold, by one statement for all of them.

use flagmeter_core::minute::Minute;
use flagmeter_core::period::BillingPeriod;
use flagmeter_core::quota::MAX_TOKENS;
use flagmeter_core::rollup::{PeriodBatch, PeriodTotal};
use foldhash::HashMap;
use jiff_sqlx::ToSqlx;
use sqlx::PgConnection;

use super::batch::Row;
use super::billing::Settings;
use super::totals::Total;
use crate::StoreError;

/// Fails if `added` made a period exceed the bound.
pub(super) fn check(added: &PeriodBatch, totals: &[Total]) -> Result<(), StoreError> {
    let is_exceeded = |total: &Total| {
        added.iter().any(|((tenant, period), row)| {
            (tenant.as_str(), period.start) == (&*total.tenant, total.period_start)
                && PeriodTotal::is_exceeded(total.tokens, row.sum.tokens)
        })
    };
    // Nearly always no period is full, and then this is all that a batch pays for it.
    let mut beyond = totals.iter().filter(|total| total.tokens > MAX_TOKENS);
    if beyond.any(is_exceeded) { Err(StoreError::PeriodFull) } else { Ok(()) }
}

/// The rows that their periods have room for, in their order, and those that they have not.
///
/// Nothing is locked: if another worker adds to a period meanwhile, [`check`] finds that out.
pub(super) async fn split<'a>(
    tx: &mut PgConnection,
    settings: &Settings,
    rows: Vec<Row<'a>>,
) -> Result<(Vec<Row<'a>>, Vec<Row<'a>>), StoreError> {
    let mut periods = Periods::default();
    let places: Vec<usize> = rows.iter().map(|row| periods.place(settings, row)).collect();
    let mut totals = read(tx, &periods.all).await?;
    let mut places = places.into_iter();
    Ok(rows.into_iter().partition(|row| {
        let total = places.next().and_then(|place| totals.get_mut(place));
        total.is_some_and(|total| total.add(row.event.signed_tokens()))
    }))
}

/// The periods of a batch, each once.
#[derive(Default)]
struct Periods<'a> {
    all: Vec<(&'a str, BillingPeriod)>,
    /// Where those of a tenant are in `all`: mostly one, and never more than events may be late for.
    of_tenant: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Periods<'a> {
    /// The place of the period that `row` lies in.
    fn place(&mut self, settings: &Settings, row: &Row<'a>) -> usize {
        let (tenant, instant) = (row.event.tenant.as_str(), Minute::of(row.event.occurred_at).start());
        let places = self.of_tenant.entry(tenant).or_default();
        let known = places.iter().copied().find(|place| self.all[*place].1.contains(instant));
        known.unwrap_or_else(|| {
            places.push(self.all.len());
            self.all.push((tenant, settings.period(&row.event.tenant, instant)));
            self.all.len() - 1
        })
    }
}

/// What `periods` hold, in their order.
async fn read(
    tx: &mut PgConnection,
    periods: &[(&str, BillingPeriod)],
) -> Result<Vec<PeriodTotal>, StoreError> {
    let tenants: Vec<&str> = periods.iter().map(|(tenant, _)| *tenant).collect();
    let starts: Vec<_> = periods.iter().map(|(_, period)| period.start.to_sqlx()).collect();
    let found = sqlx::query!(
        r#"SELECT place AS "place!", usage_periods.total_tokens
           FROM UNNEST($1::text[], $2::timestamptz[]) WITH ORDINALITY AS batch (tenant, period_start, place)
           JOIN usage_periods USING (tenant, period_start)"#,
        &tenants as &[&str],
        &starts as &[jiff_sqlx::Timestamp],
    )
    .fetch_all(tx)
    .await
    .map_err(StoreError::postgres("read what periods hold"))?;
    let found: HashMap<i64, i64> = found.into_iter().map(|row| (row.place, row.total_tokens)).collect();
    let total = |place: i64| PeriodTotal::of(found.get(&place).copied().unwrap_or_default());
    Ok((1..).take(periods.len()).map(total).collect())
}
