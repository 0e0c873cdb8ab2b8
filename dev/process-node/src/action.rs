//! What a probe or a `preStop` hook does to a running container.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    ContainerPort, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::image;
use crate::process::Launch;

/// One thing to do.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Run a command as the container does: its environment, its folder.
    Exec(&'a ExecAction),
    /// Ask for a page; 200 to 399 is success.
    HttpGet(&'a HTTPGetAction),
    /// Connect.
    TcpSocket(&'a TCPSocketAction),
    /// Wait, in seconds.
    Sleep(i64),
    /// Something that the process node cannot do.
    Unknown,
}

impl<'a> Action<'a> {
    /// What `probe` does.
    #[must_use]
    pub fn of_probe(probe: &'a Probe) -> Self {
        let exec = probe.exec.as_ref().map(Self::Exec);
        exec.or(probe.http_get.as_ref().map(Self::HttpGet))
            .or(probe.tcp_socket.as_ref().map(Self::TcpSocket))
            .unwrap_or(Self::Unknown)
    }

    /// What a hook does.
    #[must_use]
    pub fn of_hook(hook: &'a LifecycleHandler) -> Self {
        let exec = hook.exec.as_ref().map(Self::Exec);
        exec.or(hook.http_get.as_ref().map(Self::HttpGet))
            .or(hook.sleep.as_ref().map(|sleep| Self::Sleep(sleep.seconds)))
            .unwrap_or(Self::Unknown)
    }
}

/// The running container that actions are for.
#[derive(Clone)]
pub struct Target<'a> {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The container's ports, for those who name one.
    pub ports: &'a [ContainerPort],
    /// How the container was started.
    pub launch: &'a Launch,
    /// The image's binaries.
    pub bin_dir: &'a Path,
    /// For HTTP.
    pub http: &'a reqwest::Client,
}

impl Target<'_> {
    /// Does `action`. Dropping the future ends it.
    ///
    /// # Errors
    ///
    /// A sentence that says what failed, for an Event.
    pub async fn perform(&self, action: Action<'_>) -> Result<(), String> {
        match action {
            Action::Exec(exec) => self.exec(exec.command.as_deref().unwrap_or_default()).await,
            Action::HttpGet(get) => self.http_get(get).await,
            Action::TcpSocket(socket) => {
                let address = (self.host(socket.host.as_ref()), self.port(&socket.port)?);
                let connected = TcpStream::connect((address.0.as_str(), address.1)).await;
                connected.map(drop).map_err(|error| format!("{}:{}: {error}", address.0, address.1))
            }
            Action::Sleep(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds.unsigned_abs())).await;
                Ok(())
            }
            Action::Unknown => {
                Err("the process node knows exec, httpGet, tcpSocket and sleep only".to_owned())
            }
        }
    }

    async fn exec(&self, command: &[String]) -> Result<(), String> {
        let [program, arguments @ ..] = command else {
            return Err("the command is empty".to_owned());
        };
        let launch = Launch {
            // What is not of the image, such as a shell, is the machine's.
            program: image::find(program, self.bin_dir).unwrap_or_else(|| program.into()),
            arguments: arguments.to_vec(),
            ..self.launch.clone()
        };
        match launch.command().status().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program}: {status}")),
            Err(error) => Err(format!("{program}: {error}")),
        }
    }

    async fn http_get(&self, get: &HTTPGetAction) -> Result<(), String> {
        if get.scheme.as_deref() == Some("HTTPS") {
            return Err("the process node probes by plain HTTP only".to_owned());
        }
        let (host, port) = (self.host(get.host.as_ref()), self.port(&get.port)?);
        let path = get.path.as_deref().unwrap_or_default().trim_start_matches('/');
        let url = format!("http://{host}:{port}/{path}");
        let mut request = self.http.get(&url);
        for header in get.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let answer = request.send().await.map_err(|error| flagmeter_runtime::telemetry::chain(&error))?;
        match answer.status().as_u16() {
            200..400 => Ok(()),
            status => Err(format!("{url} answered {status}")),
        }
    }

    fn host(&self, host: Option<&String>) -> String {
        host.filter(|host| !host.is_empty()).cloned().unwrap_or_else(|| self.ip.to_string())
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = container_port(port, self.ports);
        number.ok_or_else(|| format!("the container has no port {port:?}"))
    }
}

/// The number of a port that is given by number, or by the name that `ports` has for it.
#[must_use]
pub fn container_port(port: &IntOrString, ports: &[ContainerPort]) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            ports.iter().find(|port| port.name.as_ref() == Some(name))?.container_port
        }
    };
    u16::try_from(number).ok().filter(|number| *number != 0)
}
