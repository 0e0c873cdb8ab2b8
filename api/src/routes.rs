//! The routes, a module for each group.

pub(crate) mod check;
pub(crate) mod dashboard;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod live;
mod parameters;
mod path;
pub(crate) mod usage;

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use serde::Serialize;

use crate::error::ApiError;

/// Most answers fit into so many bytes.
const USUAL_BYTES: usize = 512;

/// `answer` as JSON, written into memory that need not grow where it is of the usual size.
///
/// # Errors
///
/// [`ApiError::Internal`]: it is no JSON.
pub(crate) fn json(answer: &impl Serialize) -> Result<Response, ApiError> {
    let mut body = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut body, answer).map_err(|_| ApiError::Internal)?;
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A route by its path, whatever the method: a label of the metrics, and what its time limit hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Events,
    Event,
    Usage,
    Series,
    Periods,
    Check,
    Dashboard,
    /// What the page is made of.
    Asset,
    Live,
    /// There is no such path.
    None,
}

impl Route {
    /// Every route, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Events,
        Self::Event,
        Self::Usage,
        Self::Series,
        Self::Periods,
        Self::Check,
        Self::Dashboard,
        Self::Asset,
        Self::Live,
        Self::None,
    ];

    /// The path with its parameters in braces, as the router has it.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Events => "/events",
            Self::Event => "/events/{tenant}/{*id}",
            Self::Usage => "/usage/{tenant}",
            Self::Series => "/usage/{tenant}/series",
            Self::Periods => "/usage/{tenant}/periods",
            Self::Check => "/check/{tenant}",
            Self::Dashboard => "/",
            Self::Asset => "/static/{file}",
            Self::Live => "/live",
            Self::None => "none",
        }
    }

    /// The route of a request's path. The router knows it too, but says it only to what is built into it, and
    /// such layers cost each request more than all of this.
    pub(crate) fn of(path: &str) -> Self {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("events"), None, ..) => Self::Events,
            // An id may have any characters, `/` among them.
            (Some("events"), Some(_), Some(_), _) => Self::Event,
            (Some("usage"), Some(_), None, _) => Self::Usage,
            (Some("usage"), Some(_), Some("series"), None) => Self::Series,
            (Some("usage"), Some(_), Some("periods"), None) => Self::Periods,
            (Some("check"), Some(_), None, _) => Self::Check,
            (Some(""), None, ..) => Self::Dashboard,
            (Some("static"), Some(_), None, _) => Self::Asset,
            (Some("live"), None, ..) => Self::Live,
            _ => Self::None,
        }
    }

    /// What it asks of its caller. `path` is the request's.
    pub(crate) fn access(self, path: &str) -> Access<'_> {
        match self {
            Self::Events => Access::Body,
            Self::Event | Self::Usage | Self::Series | Self::Periods | Self::Check => {
                Access::Tenant(path.split('/').nth(2).unwrap_or_default())
            }
            Self::Dashboard | Self::Asset | Self::Live => Access::Page,
            Self::None => Access::Any,
        }
    }

    /// Whether its requests are cut off by the time limit for all that the router answers. A stream has no end.
    pub(crate) const fn is_limited(self) -> bool {
        !matches!(self, Self::Live)
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access<'path> {
    /// A key, of the tenants that the body names; its handler looks.
    Body,
    /// A key of this tenant, as the path spells it. A name needs no escapes, and one that has some is nobody's.
    Tenant(&'path str),
    /// The admin token: what all tenants used is shown.
    Page,
    /// Any key: there is nothing here.
    Any,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_the_route_that_the_router_gives_it_to() {
        for (number, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, number, "{route:?}");
            if route != Route::None {
                assert_eq!(Route::of(route.path()), route);
            }
        }
        for path in
            ["/event", "/events/acme", "/usage", "/usage/acme/else", "/usage/acme/series/x", "/live/acme"]
        {
            assert_eq!(Route::of(path), Route::None, "{path}");
        }
        assert_eq!(Route::of("/events/acme/a/b"), Route::Event);
    }
}
