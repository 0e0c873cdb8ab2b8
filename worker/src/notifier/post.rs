//! One POST to a URL that a tenant chose: bounded in time and size, to public addresses alone, and without a word
//! of the URL in what is said about it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flagmeter_core::address::{NotPublic, check_public};
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long it may take to resolve the name and to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How long all of it may take. A message's lease is longer.
const TOTAL_LIMIT: Duration = Duration::from_secs(10);

/// How long the body of an answer that is no success is waited for.
const BODY_TIME: Duration = Duration::from_secs(2);

/// How much of it is read: Slack gives its reasons in a word.
const BODY_BYTES: usize = 512;

/// How large the head of an answer may be.
const HEAD_BYTES: usize = 16 << 10;

/// Addresses of a host that are tried.
const ADDRESSES: usize = 4;

/// Sends requests. Each has a connection of its own: messages are rare.
pub struct Poster {
    tls: TlsConnector,
    allow_private: bool,
    total_limit: Duration,
}

/// What the receiver answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its `Retry-After`.
    pub(crate) retry_after: Option<String>,
    /// The start of its body, if it is no success. It is never shown as it is: it may be anything.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer. Said to people, so without the URL and without a cause that would name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the URL cannot be posted to; correct it in the tenant's settings")]
    NotAUrl,
    #[error("the URL is not an https one; correct it in the tenant's settings")]
    NotHttps,
    #[error("the URL's host is {0}, which alerts are not sent to; name a public host")]
    NotPublic(NotPublic),
    #[error("the name of the URL's host leads to {0}, which alerts are not sent to")]
    ResolvedNotPublic(NotPublic),
    #[error("the name of the URL's host could not be resolved")]
    Unresolved,
    #[error("the connection was refused")]
    ConnectionRefused,
    #[error("no connection could be made")]
    Unreachable,
    #[error("no connection within {} s", CONNECT_LIMIT.as_secs())]
    SlowConnection,
    #[error(
        "TLS failed; the receiver's certificate must be valid for its name, its chain complete, and its root public"
    )]
    Tls,
    #[error("no answer within {} s", TOTAL_LIMIT.as_secs())]
    SlowAnswer,
    #[error("the connection broke before there was an answer, or the answer was not HTTP")]
    Broken,
}

impl Fault {
    /// Whether only an edit of the URL helps.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::NotAUrl | Self::NotHttps | Self::NotPublic(_))
    }
}

/// Where a URL leads.
struct Destination {
    https: bool,
    /// What stands in the URL before an `@`, as a header.
    credentials: Option<HeaderValue>,
    /// Host and port as they stand in the URL: with brackets, if it is an IPv6 address.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Poster {
    /// Sends to public hosts over https, whose certificates come from the authorities that browsers trust;
    /// `allow_private` adds hosts of any address, and http.
    #[must_use]
    pub fn new(allow_private: bool) -> Self {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Self::trusting(roots, allow_private)
    }

    /// One that trusts `authority` alone, for tests.
    ///
    /// # Errors
    ///
    /// If it is no certificate.
    pub fn trusting_only(
        authority: CertificateDer<'static>,
        allow_private: bool,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        Ok(Self::trusting(roots, allow_private))
    }

    /// With less patience than is usual, for tests of it.
    #[must_use]
    pub fn within(self, total_limit: Duration) -> Self {
        Self { total_limit, ..self }
    }

    #[expect(clippy::expect_used, reason = "ring knows the protocol versions that rustls thinks safe")]
    fn trusting(roots: RootCertStore, allow_private: bool) -> Self {
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring has TLS 1.2 and 1.3")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(config)), allow_private, total_limit: TOTAL_LIMIT }
    }

    /// Posts `body`, which is JSON, to `url`. A redirect is an answer like any other, and is not followed.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Vec<u8>,
    ) -> Result<Answer, Fault> {
        let destination = self.destination(url)?;
        let mut request = Request::post(&destination.path)
            .header(HOST, &destination.authority)
            .header(USER_AGENT, concat!("FlagMeter/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Fault::NotAUrl)?;
        let credentials = destination.credentials.clone().map(|value| (AUTHORIZATION, value));
        let headers = headers.into_iter().chain(credentials);
        request.headers_mut().extend(headers.map(|(name, value)| (Some(name), value)));
        timeout(self.total_limit, self.exchange(&destination, request))
            .await
            .unwrap_or(Err(Fault::SlowAnswer))
    }

    /// Where `url` leads, if that can be seen from the URL and is allowed.
    fn destination(&self, url: &str) -> Result<Destination, Fault> {
        let uri: Uri = url.parse().map_err(|_| Fault::NotAUrl)?;
        let authority =
            uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(Fault::NotAUrl)?;
        let (user, place) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP && self.allow_private => false,
            _ => return Err(Fault::NotHttps),
        };
        let port = match place.strip_prefix(authority.host()).ok_or(Fault::NotAUrl)? {
            "" | ":" if https => 443,
            "" | ":" => 80,
            _ => authority.port_u16().ok_or(Fault::NotAUrl)?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if let Ok(address) = host.parse::<IpAddr>() {
            self.check(address).map_err(Fault::NotPublic)?;
        }
        Ok(Destination {
            https,
            credentials: credentials(user),
            authority: place.to_owned(),
            host,
            port,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    fn check(&self, address: IpAddr) -> Result<(), NotPublic> {
        if self.allow_private { Ok(()) } else { check_public(address) }
    }

    async fn exchange(
        &self,
        destination: &Destination,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Fault> {
        let stream = timeout(CONNECT_LIMIT, self.connect(destination)).await;
        let stream = stream.unwrap_or(Err(Fault::SlowConnection))?;
        if !destination.https {
            return converse(stream, request).await;
        }
        let name = ServerName::try_from(destination.host.clone()).map_err(|_| Fault::NotAUrl)?;
        let stream = self.tls.connect(name, stream).await.map_err(|_| Fault::Tls)?;
        converse(stream, request).await
    }

    /// Connects to an address of the host that was checked: the name is resolved here, and by nobody after this.
    async fn connect(&self, destination: &Destination) -> Result<TcpStream, Fault> {
        let found = lookup_host((destination.host.as_str(), destination.port)).await;
        let mut refusal = Fault::Unresolved;
        let mut allowed: Vec<SocketAddr> = Vec::new();
        for address in found.map_err(|_| Fault::Unresolved)? {
            match self.check(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(why) => refusal = Fault::ResolvedNotPublic(why),
            }
        }
        // Many boxes have no way out over IPv6.
        allowed.sort_by_key(SocketAddr::is_ipv6);
        for address in allowed.into_iter().take(ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    refusal = Fault::ConnectionRefused;
                }
                Err(_) => refusal = Fault::Unreachable,
            }
        }
        Err(refusal)
    }
}

/// What `user:password` of a URL stands for: Basic authentication (RFC 7617). `None` if there is neither.
fn credentials(user: &str) -> Option<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = [user, password].map(|part| percent_decode_str(part).collect::<Vec<u8>>());
    let encoded = STANDARD.encode(decoded.join(&b':'));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value).filter(|_| !user.is_empty() || !password.is_empty())
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Fault::Broken)?;
    // It ends with this set: nothing of a conversation outlives its time.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await.map_err(|_| Fault::Broken)?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    // A success is one whatever its body says, or however long it takes to say it.
    let body = if status.is_success() { Vec::new() } else { start_of_body(response).await };
    Ok(Answer { status, retry_after, body })
}

/// What comes of the body in the time that is given to it.
async fn start_of_body(response: Response<Incoming>) -> Vec<u8> {
    let mut start = Vec::new();
    let mut body = response.into_body();
    let read = async {
        while start.len() < BODY_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Ok(data) = frame.into_data() {
                start.extend_from_slice(&data[..data.len().min(BODY_BYTES - start.len())]);
            }
        }
    };
    // What was read so far is enough, or there is nothing to be known.
    let _ = timeout(BODY_TIME, read).await;
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fault(url: &str) -> Fault {
        Poster::new(false).post(url, Vec::new(), Vec::new()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_url_that_must_not_be_posted_to_is_refused_before_anything_is_sent() {
        for url in [
            "",
            "hooks.example.com",
            "/path",
            "https://",
            "https:///x",
            "https://example.com:99999/",
            "https://user:word@/",
        ] {
            let fault = fault(url).await;
            assert!(matches!(fault, Fault::NotAUrl | Fault::NotHttps) && fault.is_final(), "{url}: {fault}");
        }
        for url in ["http://1.1.1.1/", "ftp://1.1.1.1/", "file://host/etc/passwd"] {
            assert_eq!(fault(url).await, Fault::NotHttps, "{url}");
        }
        for url in [
            "https://127.0.0.1/",
            "https://10.0.0.1:6443/api",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fd00:ec2::254]/",
            "https://user:word@10.0.0.1/",
            "https://1.1.1.1@10.0.0.1/",
            "https://1.1.1.1:443@[::1]:443/",
        ] {
            let fault = fault(url).await;
            assert!(matches!(fault, Fault::NotPublic(_)) && fault.is_final(), "{url}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_name_or_a_strange_form_of_a_private_address_is_refused_when_it_is_resolved() {
        for url in
            ["https://localhost/", "https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://0/"]
        {
            let fault = fault(url).await;
            // Where the system's resolver knows the form, it leads to a private address; else to none.
            assert!(matches!(fault, Fault::ResolvedNotPublic(_) | Fault::Unresolved), "{url}: {fault}");
        }
        assert!(matches!(fault("https://localhost/").await, Fault::ResolvedNotPublic(_)));
    }

    #[test]
    fn a_user_and_a_password_in_a_url_are_basic_authentication_and_no_part_of_the_host() {
        let cases = [
            // URL, authorization, host as it is said, port
            ("https://example.com/x", None, "example.com", 443),
            ("https://example.com:/x", None, "example.com:", 443),
            ("https://@example.com/x", None, "example.com", 443),
            (
                "https://Aladdin:open%20sesame@example.com",
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
                "example.com",
                443,
            ),
            ("https://user:p%40ss@example.com:8443", Some("Basic dXNlcjpwQHNz"), "example.com:8443", 8_443),
            ("https://token@[2606:4700::1]:8443", Some("Basic dG9rZW46"), "[2606:4700::1]:8443", 8_443),
        ];
        for (url, authorization, authority, port) in cases {
            let Ok(found) = Poster::new(false).destination(url) else { panic!("{url}") };
            let said = found.credentials.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(
                (said, found.authority.as_str(), found.port),
                (authorization, authority, port),
                "{url}"
            );
            assert!(found.credentials.is_none_or(|value| value.is_sensitive()));
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_a_fault_that_may_pass() {
        let fault =
            Poster::new(true).post("http://no-such-host.invalid/", Vec::new(), Vec::new()).await.unwrap_err();
        // A resolver that does not answer at all takes too long.
        assert!(matches!(fault, Fault::Unresolved | Fault::SlowConnection) && !fault.is_final(), "{fault}");
    }
}
