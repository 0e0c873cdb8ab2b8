//! A port that is opened, or a message that says which one is not, and why.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Listens on `address`, which is the value of `setting`.
///
/// # Errors
///
/// The system's error, with the address, the setting and what can be done.
pub async fn on(setting: &str, address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| explained(setting, address, &error))
}

fn explained(setting: &str, address: SocketAddr, error: &Error) -> Error {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => "another process listens there; stop it, or set another port",
        ErrorKind::AddrNotAvailable => "this machine does not have this address; 0.0.0.0 is every one it has",
        ErrorKind::PermissionDenied => "ports below 1024 need more rights; set a higher one",
        _ => "set another address",
    };
    Error::new(error.kind(), format!("cannot listen on {address} ({setting}): {error}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_setting_and_what_to_do() {
        let first = on("FLAGMETER_LISTEN", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = on("FLAGMETER_LISTEN", taken).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot listen on {taken} (FLAGMETER_LISTEN): ")), "{text}");
        assert!(text.ends_with("another process listens there; stop it, or set another port"), "{text}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named_too() {
        // 192.0.2.0/24 is for documentation: nobody has it.
        let error = on("FLAGMETER_ADMIN_LISTEN", ([192, 0, 2, 1], 0).into()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("192.0.2.1:0 (FLAGMETER_ADMIN_LISTEN)") && text.contains("0.0.0.0"), "{text}");
    }
}
