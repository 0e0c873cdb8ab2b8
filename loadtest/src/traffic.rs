//! What is sent: requests made once, as bytes.

use std::fmt::Write as _;

/// Tenants of every run; each has [`FEATURES`].
pub(crate) const TENANTS: usize = 50;

/// Features of a tenant.
pub(crate) const FEATURES: usize = 8;

/// Bytes of a POST's body, as the prototype's were.
const BODY_BYTES: usize = 250;

/// A request, ready to be written to a connection.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Events that it brings.
    pub(crate) events: u64,
}

/// Requests that follow each other, over and over.
pub(crate) struct Traffic(Vec<Request>);

/// The id of a tenant.
pub(crate) fn tenant(number: usize) -> String {
    format!("bench-{:02}", number % TENANTS)
}

/// The key of a tenant, of a key's length and no secret.
pub(crate) fn key(number: usize) -> String {
    format!("fm_{:A>43}", tenant(number))
}

/// The name of a feature.
pub(crate) fn feature(number: usize) -> String {
    format!("model-{}", number % FEATURES)
}

impl Traffic {
    /// POSTs of one event each, of every tenant and feature in turn.
    pub(crate) fn single() -> Self {
        Self((0..TENANTS * FEATURES).map(post_one).collect())
    }

    /// The same, each with its tenant's key.
    pub(crate) fn with_keys() -> Self {
        let Self(mut posts) = Self::single();
        for (number, post) in posts.iter_mut().enumerate() {
            let header = format!("Authorization: Bearer {}\r\n", key(number));
            let lines = b"POST /events HTTP/1.1\r\n".len();
            post.bytes.splice(lines..lines, header.into_bytes());
        }
        Self(posts)
    }

    /// POSTs of JSON arrays.
    pub(crate) fn arrays(events: usize) -> Self {
        Self((0..8).map(|number| post_list(number, events, "application/json", ["[", ",", "]"])).collect())
    }

    /// POSTs of an event a line.
    pub(crate) fn lines(events: usize) -> Self {
        Self(
            (0..8)
                .map(|number| post_list(number, events, "application/x-ndjson", ["", "\n", "\n"]))
                .collect(),
        )
    }

    /// GETs of every tenant's usage.
    pub(crate) fn usage() -> Self {
        Self((0..TENANTS).map(get_usage).collect())
    }

    /// GETs of whether every tenant may use some more.
    pub(crate) fn check() -> Self {
        Self((0..TENANTS).map(|number| get(&format!("/check/{}?tokens=1000", tenant(number)))).collect())
    }

    /// Four POSTs of one event, then a GET.
    pub(crate) fn mix() -> Self {
        let posts = TENANTS * FEATURES;
        Self(
            (0..posts)
                .flat_map(|number| {
                    let get = (number % 4 == 3).then(|| get_usage(number / 4));
                    [Some(post_one(number)), get].into_iter().flatten()
                })
                .collect(),
        )
    }

    /// The request at `position`, which may be any number.
    pub(crate) fn at(&self, position: usize) -> &Request {
        &self.0[position % self.0.len()]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A POST of one event of one token.
pub(crate) fn post_probe(tenant: &str, feature: &str) -> Request {
    post("application/json", &format!(r#"{{"tenant":"{tenant}","feature":"{feature}","tokens":1}}"#), 1)
}

fn event(number: usize) -> String {
    let (tenant, feature) = (tenant(number), feature(number / TENANTS));
    format!(r#"{{"tenant":"{tenant}","feature":"{feature}","tokens":{}}}"#, 100 + number % 900)
}

/// An event whose body has the prototype's size: what is not metered is ignored.
fn post_one(number: usize) -> Request {
    let event = event(number);
    let padding = BODY_BYTES - event.len() - r#","request":"""#.len();
    let body = format!(r#"{},"request":"{:x<padding$}"}}"#, &event[..event.len() - 1], "");
    post("application/json", &body, 1)
}

fn post_list(first: usize, events: usize, media_type: &str, [open, between, close]: [&str; 3]) -> Request {
    let list: Vec<String> = (0..events).map(|number| event(first * 50 + number)).collect();
    post(media_type, &format!("{open}{}{close}", list.join(between)), events as u64)
}

fn post(media_type: &str, body: &str, events: u64) -> Request {
    let length = body.len();
    let mut text = String::with_capacity(length + 128);
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "POST /events HTTP/1.1\r\nHost: bench\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    Request { bytes: text.into_bytes(), events }
}

/// A GET of a tenant's usage.
pub(crate) fn get_usage(number: usize) -> Request {
    get(&format!("/usage/{}", tenant(number)))
}

fn get(path: &str) -> Request {
    let text = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    Request { bytes: text.into_bytes(), events: 0 }
}

#[cfg(test)]
mod tests {
    use flagmeter_core::event;

    use super::*;

    #[test]
    fn a_single_post_has_the_prototypes_size_and_is_an_event() {
        let traffic = Traffic::single();
        assert_eq!(traffic.len(), TENANTS * FEATURES);
        let text = String::from_utf8(traffic.at(traffic.len() + 123).bytes.clone()).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), BODY_BYTES);
        let now = "2026-06-15T12:00:00Z".parse().unwrap();
        let reading = event::Reading::new(event::Arrival::at(now, None), 1);
        let read = event::decode(body.as_bytes(), event::Form::Json, &reading).unwrap();
        assert!(matches!(read.body, event::Body::One(Ok(_), None)), "{read:?}");
    }

    #[test]
    fn a_post_with_a_key_is_the_same_otherwise() {
        let (without, with) = (Traffic::single(), Traffic::with_keys());
        let text = String::from_utf8(with.at(51).bytes.clone()).unwrap();
        assert!(text.starts_with("POST /events HTTP/1.1\r\nAuthorization: Bearer fm_A"), "{text}");
        let header = format!("Authorization: Bearer {}\r\n", key(51));
        assert_eq!(text.replace(&header, "").as_bytes(), without.at(51).bytes);
    }

    #[test]
    fn a_fifth_of_the_mix_are_gets() {
        let mix = Traffic::mix();
        let gets = mix.0.iter().filter(|request| request.events == 0).count();
        assert_eq!(gets * 5, mix.len());
    }

    #[test]
    fn every_tenant_has_every_feature() {
        let mut names: Vec<String> = (0..TENANTS * FEATURES)
            .map(event)
            .map(|event| event.split(",\"tokens").next().unwrap().to_owned())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), TENANTS * FEATURES);
    }
}
