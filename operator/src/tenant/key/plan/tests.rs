use flagmeter_store::api_key::ApiKey;

use super::*;

const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

fn now() -> Timestamp {
    "2026-06-15T12:00:00Z".parse().unwrap()
}

fn own(key: Option<&ApiKey>, rotation: Option<&str>) -> Held {
    Held::Own(Own {
        key: key.map(ApiKey::hash),
        rotation: rotation.map(str::to_owned),
        version: "1".to_owned(),
    })
}

fn lasting(key: &ApiKey) -> TenantKey {
    TenantKey { hash: key.hash(), expires_at: None }
}

fn ending(key: &ApiKey, hours: i64) -> TenantKey {
    TenantKey { hash: key.hash(), expires_at: Some(now() + SignedDuration::from_hours(hours)) }
}

fn planned(held: &Held, wanted: Option<&str>, rows: &[TenantKey]) -> (Current, Vec<TenantKey>) {
    let Plan { current, former } = plan(held, wanted, rows, now(), OVERLAP);
    (current, former)
}

fn keys<const N: usize>() -> [ApiKey; N] {
    std::array::from_fn(|_| ApiKey::random().unwrap())
}

#[test]
fn a_key_is_made_once_and_again_only_where_there_is_none() {
    let [key, old] = keys();
    let made = |why| (Current::Made(why), Vec::new());
    assert_eq!(planned(&Held::Nothing, None, &[]), made(Why::First));
    assert_eq!(planned(&own(Some(&key), None), None, &[lasting(&key)]), (Current::Stays(key.hash()), vec![]));
    // Whoever deletes the Secret wants all keys to end, those of a rotation too.
    assert_eq!(planned(&Held::Nothing, None, &[lasting(&key), ending(&old, 5)]), made(Why::Gone));
    assert_eq!(planned(&own(None, None), None, &[lasting(&key)]), made(Why::Invalid));
}

#[test]
fn a_key_put_in_by_hand_counts_and_ends_the_one_before() {
    let [by_hand, before, former] = keys();
    let rows = [lasting(&before), ending(&former, 5)];
    let expected = (Current::Stays(by_hand.hash()), vec![ending(&former, 5)]);
    assert_eq!(planned(&own(Some(&by_hand), None), None, &rows), expected);
}

#[test]
fn the_annotation_makes_a_key_once_for_each_value_and_the_former_works_on() {
    let [key, older] = keys();
    let rows = [lasting(&key), ending(&older, 5)];
    let rotated = (Current::Made(Why::Rotated), vec![ending(&key, 24), ending(&older, 5)]);
    assert_eq!(planned(&own(Some(&key), None), Some("1"), &rows), rotated);
    assert_eq!(planned(&own(Some(&key), Some("1")), Some("2"), &rows), rotated);
    let stays = (Current::Stays(key.hash()), vec![ending(&older, 5)]);
    assert_eq!(planned(&own(Some(&key), Some("1")), Some("1"), &rows), stays);
    assert_eq!(
        planned(&own(Some(&key), Some("1")), None, &rows),
        stays,
        "a removed annotation asks for nothing"
    );
}

#[test]
fn a_rotation_that_was_cut_off_does_not_put_off_the_end_of_the_former_key() {
    let [key, unseen] = keys();
    let rows = [ending(&key, 23), lasting(&unseen)];
    let expected = (Current::Made(Why::Rotated), vec![ending(&key, 23)]);
    assert_eq!(planned(&own(Some(&key), None), Some("1"), &rows), expected);
}

#[test]
fn keys_that_have_ended_are_forgotten_and_there_are_never_many() {
    let [key, ended] = keys();
    let others = keys::<6>();
    let mut rows: Vec<_> = (1..).zip(&others).map(|(hours, key)| ending(key, hours)).collect();
    rows.extend([lasting(&key), ending(&ended, 0)]);
    let (_, former) = planned(&own(Some(&key), None), Some("1"), &rows);
    assert_eq!(
        former,
        [ending(&key, 24), ending(&others[5], 6), ending(&others[4], 5), ending(&others[3], 4)]
    );
    let (_, former) = planned(&own(Some(&key), Some("1")), Some("1"), &[lasting(&key), ending(&ended, 0)]);
    assert_eq!(former, []);
}

#[test]
fn without_an_overlap_the_former_key_ends_at_once() {
    let [key] = keys();
    let plan = plan(&own(Some(&key), None), Some("1"), &[lasting(&key)], now(), SignedDuration::ZERO);
    assert_eq!(plan, Plan { current: Current::Made(Why::Rotated), former: Vec::new() });
}

fn loose(key: &ApiKey) -> Held {
    Held::Loose(Loose { key: key.hash(), owners: Vec::new(), version: "1".to_owned() })
}

#[test]
fn a_key_whose_secret_lost_its_owner_goes_on_working_and_so_do_the_former_ones() {
    let [key, former] = keys();
    let adopted = |former| (Current::Adopted(key.hash()), former);
    // Whatever the annotation says: that it was not answered may be lost as well.
    for wanted in [None, Some("1")] {
        let rows = [lasting(&key), ending(&former, 5)];
        assert_eq!(planned(&loose(&key), wanted, &rows), adopted(vec![ending(&former, 5)]));
        assert_eq!(planned(&loose(&key), wanted, &[]), adopted(vec![]), "it was there before the Tenant");
    }
    // From a backup that is older than the last rotation: the clients may have either.
    let rows = [ending(&key, 5), lasting(&former)];
    assert_eq!(planned(&loose(&key), None, &rows), adopted(vec![ending(&former, 24)]));
    let rows = [ending(&key, 5), ending(&former, 23)];
    assert_eq!(planned(&loose(&key), None, &rows), adopted(vec![ending(&former, 23)]), "it is not put off");
}

#[test]
fn a_secret_that_is_being_deleted_ends_the_keys_and_one_that_is_not_the_tenants_ends_none() {
    let [key] = keys();
    assert_eq!(planned(&Held::Going, Some("1"), &[lasting(&key)]), (Current::None, vec![]));
    assert_eq!(planned(&Held::Taken, Some("1"), &[lasting(&key)]), (Current::Untouched, vec![]));
}
