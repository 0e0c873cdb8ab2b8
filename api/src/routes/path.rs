//! A path's parameters.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// The parameters, as axum's own extractor reads them. What is no text has escapes that nothing here has.
pub(crate) struct Path<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    axum::extract::Path<T>: FromRequestParts<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(parameters)| Self(parameters)).map_err(|_| ApiError::NotFound)
    }
}

/// The tenant that a path names after its first part, read as [`Path`] would.
///
/// # Errors
///
/// [`ApiError::NotFound`]: it is no text.
pub(crate) fn tenant(uri: &Uri) -> Result<Cow<'_, str>, ApiError> {
    let part = uri.path().split('/').nth(2).unwrap_or_default();
    percent_decode_str(part).decode_utf8().map_err(|_| ApiError::NotFound)
}
