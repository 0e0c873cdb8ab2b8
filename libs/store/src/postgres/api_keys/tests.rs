use super::*;

use std::time::Duration;

use crate::api_key::ApiKey;
use crate::postgres::directory::Changes;
use crate::postgres::tenants;
use crate::testing;

fn hash(text: &str) -> KeyHash {
    KeyHash::of(text)
}

fn lasting(text: &str) -> TenantKey {
    TenantKey { hash: hash(text), expires_at: None }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_tenant_has_exactly_the_keys_that_were_written_last(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let until = Some("2026-06-15T12:00:00Z".parse().unwrap());
    let mut both = vec![lasting("new"), TenantKey { hash: hash("old"), expires_at: until }];
    assert!(replace(&pool, "acme", &[lasting("old"), lasting("older")]).await.unwrap());
    assert!(replace(&pool, "acme", &both).await.unwrap());
    both.sort();
    assert_eq!(of_tenant(&pool, "acme").await.unwrap(), both);
    assert!(replace(&pool, "acme", &[]).await.unwrap());
    assert_eq!(load(&pool).await.unwrap(), []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_of_another_tenant_is_not_taken_over(pool: PgPool) {
    for tenant in ["acme", "globex"] {
        testing::add_tenant(&pool, tenant).await;
    }
    assert!(replace(&pool, "acme", &[lasting("one")]).await.unwrap());
    assert!(replace(&pool, "globex", &[lasting("two")]).await.unwrap());
    assert!(!replace(&pool, "globex", &[lasting("one"), lasting("three")]).await.unwrap());
    assert_eq!(of_tenant(&pool, "acme").await.unwrap(), [lasting("one")]);
    assert_eq!(of_tenant(&pool, "globex").await.unwrap(), [lasting("two")]);
    replace(&pool, "nobody", &[lasting("four")]).await.unwrap_err();
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn keys_end_with_the_detachment_and_are_not_good_again_for_whoever_adopts_the_tenant(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let key = ApiKey::random().unwrap();
    let expected = KnownKey { hash: key.hash(), tenant: "acme".try_into().unwrap(), expires_at: None };
    replace(&pool, "acme", &[TenantKey { hash: key.hash(), expires_at: None }]).await.unwrap();
    assert_eq!(load(&pool).await.unwrap(), std::slice::from_ref(&expected));
    let owner = tenants::attached(&pool, None).await.unwrap().remove(0);
    assert!(!tenants::detach(&pool, "acme", "another").await.unwrap());
    assert_eq!(load(&pool).await.unwrap(), std::slice::from_ref(&expected), "another's end is not its own");
    assert!(tenants::detach(&pool, "acme", &owner.owner_uid).await.unwrap());
    assert_eq!(of_tenant(&pool, "acme").await.unwrap(), []);
    sqlx::query("UPDATE tenants SET detached_at = NULL").execute(&pool).await.unwrap();
    assert_eq!(load(&pool).await.unwrap(), []);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn keys_that_came_after_the_detachment_are_not_good_either_and_all_go_with_the_tenant(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    sqlx::query("UPDATE tenants SET detached_at = now()").execute(&pool).await.unwrap();
    assert!(replace(&pool, "acme", &[lasting("one")]).await.unwrap());
    assert_eq!(load(&pool).await.unwrap(), []);
    sqlx::query("DELETE FROM tenants").execute(&pool).await.unwrap();
    assert_eq!(of_tenant(&pool, "acme").await.unwrap(), []);
}

#[test]
fn a_key_is_kept_beside_the_tenants_as_it_was() {
    let key = KnownKey { hash: hash("one"), tenant: "acme".try_into().unwrap(), expires_at: None };
    assert_eq!(KeptKey::of(&key).into_key(), Some(key));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_change_of_the_keys_is_heard(pool: PgPool) {
    testing::add_tenant(&pool, "acme").await;
    let mut changes = Changes::listen(&pool).await.unwrap();
    for keys in [vec![lasting("one")], Vec::new()] {
        replace(&pool, "acme", &keys).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
    }
}
