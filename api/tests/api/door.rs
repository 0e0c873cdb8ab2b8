//! A door between an api and Valkey, which a test shuts and opens.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Valkey answers.
    Open,
    /// Connections break, and others are refused, as while its pod is gone.
    Shut,
    /// Connections stay, and nothing is answered, as while it is frozen.
    Silent,
}

/// A door, and its handle.
pub(crate) struct Doorway {
    /// The URL of the Valkey behind it.
    pub(crate) url: String,
    door: watch::Sender<Door>,
}

impl Doorway {
    /// A door to the test's Valkey.
    pub(crate) async fn new(door: Door) -> Self {
        // redis://[user]:password@host:port
        let url = valkey_url();
        let (before, valkey) = url.rsplit_once('@').or_else(|| url.rsplit_once("//")).unwrap();
        let valkey: SocketAddr = valkey.trim_end_matches('/').parse().unwrap();
        let own = free_address().await;
        let own_url = format!("{}{own}", &url[..=before.len() + usize::from(!url.contains('@'))]);
        let (door, state) = watch::channel(door);
        tokio::spawn(keep(own, valkey, state));
        Self { url: own_url, door }
    }

    /// From now on it is `door`.
    pub(crate) fn set(&self, door: Door) {
        self.door.send_replace(door);
    }
}

/// An address of this machine that nobody listens on.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "tests are told where their servers are")]
fn valkey_url() -> String {
    std::env::var("VALKEY_URL").unwrap()
}

async fn keep(own: SocketAddr, valkey: SocketAddr, mut door: watch::Receiver<Door>) {
    while is(&mut door, |door| door != Door::Shut).await {
        let listener = TcpListener::bind(own).await.unwrap();
        let mut links = JoinSet::new();
        let accept = async {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                links.spawn(link(client, valkey, door.clone()));
            }
        };
        let mut shut = door.clone();
        tokio::select! {
            () = accept => {}
            _ = is(&mut shut, |door| door == Door::Shut) => {}
        }
    }
}

async fn link(client: TcpStream, valkey: SocketAddr, door: watch::Receiver<Door>) {
    let (from_client, to_client) = client.into_split();
    let (from_valkey, to_valkey) = TcpStream::connect(valkey).await.unwrap().into_split();
    tokio::select! {
        () = pass(from_client, to_valkey, door.clone()) => {}
        () = pass(from_valkey, to_client, door) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut door: watch::Receiver<Door>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if !is(&mut door, |door| door == Door::Open).await || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until the door is so; false if nobody holds it any longer.
async fn is(door: &mut watch::Receiver<Door>, so: impl Fn(Door) -> bool) -> bool {
    door.wait_for(|door| so(*door)).await.is_ok()
}
