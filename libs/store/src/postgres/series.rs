//! Rollups summed to windows.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{PgPool, StoreError};

/// How long a sum may take that a request waits for: well before that ends.
pub const LIMIT: Duration = Duration::from_secs(8);

/// How a sum begins. It may read millions of rows, and whoever asks for it shares the machine with those
/// who count, so it takes one core.
///
/// It goes by the key, (tenant, feature, minute), and so reads no rows of other tenants, whatever the planner
/// thinks of the whole table or of its index by minute. PostgreSQL 18 skips from feature to feature by itself.
const BEGIN: &str = "BEGIN READ ONLY;
    SET LOCAL max_parallel_workers_per_gather = 0;
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_bitmapscan = off";

/// As [`exact_sums`], for estimates: what a number of 64 bits cannot hold is the largest that it can.
///
/// # Errors
///
/// As [`exact_sums`].
pub async fn sums(
    pool: &PgPool,
    tenant: &str,
    feature: Option<&str>,
    windows: &[Range<Timestamp>],
    limit: Duration,
) -> Result<Vec<i64>, StoreError> {
    let sums = exact_sums(pool, tenant, feature, windows, limit).await?;
    Ok(sums.into_iter().map(|sum| i64::try_from(sum).unwrap_or(i64::MAX)).collect())
}

/// Tokens that `tenant` used in each of `windows`, which tile a range, for one feature or for all. PostgreSQL ends it
/// after `limit`, and the connection is free then.
///
/// # Errors
///
/// [`StoreError::Postgres`]; if it [took too long](StoreError::took_too_long), a shorter range may not.
/// Otherwise the same call may be made again.
pub async fn exact_sums(
    pool: &PgPool,
    tenant: &str,
    feature: Option<&str>,
    windows: &[Range<Timestamp>],
    limit: Duration,
) -> Result<Vec<i128>, StoreError> {
    let failed = StoreError::postgres("sum rollups");
    // SET takes no parameters; this is a number.
    let begin = format!("{BEGIN};\n    SET LOCAL statement_timeout = {}", limit.as_millis());
    let mut tx = pool.begin_with(AssertSqlSafe(begin)).await.map_err(&failed)?;
    let sums = sum(&mut tx, tenant, feature, windows).await.map_err(&failed)?;
    tx.commit().await.map_err(&failed)?;
    Ok(sums)
}

async fn sum(
    tx: &mut PgConnection,
    tenant: &str,
    feature: Option<&str>,
    windows: &[Range<Timestamp>],
) -> Result<Vec<i128>, sqlx::Error> {
    let mut sums = vec![0; windows.len()];
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Ok(sums) };
    let (from, to) = (first.start.to_sqlx(), last.end.to_sqlx());
    let starts: Vec<_> = windows.iter().map(|window| window.start.to_sqlx()).collect();
    // Two statements and not one with a condition that may be absent: its plan would have to do without the
    // feature. A sum of `bigint` is `numeric`, of any size: it comes as text.
    let rows: Vec<(i32, String)> = if let Some(feature) = feature {
        sqlx::query!(
            r#"SELECT width_bucket(minute, $5::timestamptz[]) AS "place!", sum(total_tokens)::text AS "tokens!"
               FROM rollups
               WHERE tenant = $1 AND feature = $2 AND minute >= $3::timestamptz AND minute < $4::timestamptz
               GROUP BY 1"#,
            tenant,
            feature,
            from as jiff_sqlx::Timestamp,
            to as jiff_sqlx::Timestamp,
            &starts as &[jiff_sqlx::Timestamp],
        )
        .map(|row| (row.place, row.tokens))
        .fetch_all(tx)
        .await?
    } else {
        sqlx::query!(
            r#"SELECT width_bucket(minute, $4::timestamptz[]) AS "place!", sum(total_tokens)::text AS "tokens!"
               FROM rollups
               WHERE tenant = $1 AND minute >= $2::timestamptz AND minute < $3::timestamptz
               GROUP BY 1"#,
            tenant,
            from as jiff_sqlx::Timestamp,
            to as jiff_sqlx::Timestamp,
            &starts as &[jiff_sqlx::Timestamp],
        )
        .map(|row| (row.place, row.tokens))
        .fetch_all(tx)
        .await?
    };
    for (place, tokens) in rows {
        // A window's place is counted from 1.
        let index = usize::try_from(place - 1).ok();
        if let Some(sum) = index.and_then(|index| sums.get_mut(index)) {
            // Fewer digits than 39, however many rows there are.
            *sum = tokens.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    /// Rollups of a token a minute in 500 minutes: 50 tenants with 4 features, and one with as much usage as
    /// all of them, so that to read only its rows is no gain that a planner would see.
    async fn fill(pool: &PgPool) {
        sqlx::query(
            "INSERT INTO rollups (tenant, feature, minute, total_tokens)
             SELECT tenant, feature, '2026-06-15T00:00Z'::timestamptz + minute * interval '1 minute', 1
             FROM generate_series(0, 499) AS minute,
                  (SELECT 'tenant-' || tenant, 'feature-' || feature
                   FROM generate_series(1, 50) AS tenant, generate_series(1, 4) AS feature
                   UNION ALL
                   SELECT 'large', 'feature-' || feature FROM generate_series(1, 200) AS feature) AS each (tenant, feature)",
        )
        .execute(pool)
        .await
        .unwrap();
        sqlx::query("ANALYZE rollups").execute(pool).await.unwrap();
    }

    fn hours(from: &str, count: i32) -> Vec<Range<Timestamp>> {
        let start: Timestamp = from.parse().unwrap();
        let hour = |number: i32| start + SignedDuration::from_hours(1) * number;
        (0..count).map(|number| hour(number)..hour(number + 1)).collect()
    }

    /// Rows of `rollups` that this transaction read so far, whatever for.
    async fn rows_read(tx: &mut PgConnection) -> i64 {
        sqlx::query_scalar(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'rollups'",
        )
        .fetch_one(tx)
        .await
        .unwrap()
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_window_has_what_begins_in_it_and_nothing_of_its_neighbours(pool: PgPool) {
        fill(&pool).await;
        // The first window begins an hour before the first minute, the last ends 40 minutes after the last one.
        let windows = hours("2026-06-14T23:00:00Z", 10);
        let all = sums(&pool, "tenant-7", None, &windows, LIMIT).await.unwrap();
        assert_eq!(all, [0, 240, 240, 240, 240, 240, 240, 240, 240, 80]);
        let one = sums(&pool, "tenant-7", Some("feature-2"), &windows[..2], LIMIT).await.unwrap();
        assert_eq!(one, [0, 60]);
        let half = windows[1].start + SignedDuration::from_mins(30);
        let cut = [windows[1].start..half, half..windows[1].end];
        assert_eq!(sums(&pool, "tenant-7", None, &cut, LIMIT).await.unwrap(), [120, 120]);
        assert_eq!(sums(&pool, "tenant-7", Some("none"), &windows[..1], LIMIT).await.unwrap(), [0]);
        assert_eq!(sums(&pool, "nobody", None, &[], LIMIT).await.unwrap(), [0; 0]);
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_sum_reads_the_rows_that_are_in_it_and_no_others(pool: PgPool) {
        fill(&pool).await;
        let (three, all) = (hours("2026-06-15T02:00:00Z", 3), hours("2026-06-15T00:00:00Z", 9));
        let mut tx = pool.begin_with(BEGIN).await.unwrap();
        let mut read = 0;
        // More often than PostgreSQL makes a plan for the very values.
        for _ in 0..6 {
            let cases = [
                ("tenant-7", None, &three, 720),
                ("tenant-7", Some("feature-3"), &three, 180),
                ("large", None, &all, 100_000),
                ("large", Some("feature-3"), &all, 500),
            ];
            for (tenant, feature, windows, rows) in cases {
                let sums = sum(&mut tx, tenant, feature, windows).await.unwrap();
                assert_eq!(sums.iter().sum::<i128>(), i128::from(rows));
                read += rows;
                assert_eq!(rows_read(&mut tx).await, read, "{tenant} {feature:?}");
            }
        }
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_sum_is_exact_however_large_it_is_and_an_estimate_is_as_large_as_it_can_be(pool: PgPool) {
        sqlx::query(
            "INSERT INTO rollups (tenant, feature, minute, total_tokens)
             SELECT 'acme', feature, '2026-06-15T00:00Z', 9223372036854775807 FROM unnest('{f,g,h}'::text[]) AS feature",
        )
        .execute(&pool)
        .await
        .unwrap();
        let windows = hours("2026-06-15T00:00:00Z", 1);
        let exact = exact_sums(&pool, "acme", None, &windows, LIMIT).await.unwrap();
        assert_eq!(exact, [3 * i128::from(i64::MAX)]);
        assert_eq!(sums(&pool, "acme", None, &windows, LIMIT).await.unwrap(), [i64::MAX]);
    }
}
