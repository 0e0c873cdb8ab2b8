//! A wire that can be cut, or freeze: what a server looks like that is away.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// It is kept, and so are the connections.
    Frozen,
    Cut,
}

/// Forwards connections to a server, until it is cut.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A wire to `server`, `host:port`.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::channel(State::Whole).0);
        let (server, wire) = (server.to_owned(), Arc::clone(&state));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server.clone(), wire.subscribe()));
            }
        });
        Self { address, state, task }
    }

    /// Ends all connections; new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Nothing arrives any more, and nobody is told: as if the server were stopped, or its host had lost its power.
    pub(crate) fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    /// Connections are forwarded again.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, server: String, mut state: watch::Receiver<State>) {
    if *state.borrow() == State::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let mut copying = pin!(copy_bidirectional(&mut client, &mut server));
    loop {
        let now = *state.borrow_and_update();
        tokio::select! {
            _ = &mut copying, if now == State::Whole => return,
            () = std::future::ready(()), if now == State::Cut => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
