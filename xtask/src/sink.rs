//! A receiver of alerts for `up --slack-sink`: takes what would go to Slack, and prints it as people would read it.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::interrupt;

/// What it is called in the registry and among the logs.
pub(crate) const NAME: &str = "slack-sink";

/// The first port that is tried.
pub(crate) const PORT: u16 = 3900;

/// How long one sender may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The largest body that is read. Slack takes less.
const MAX_BODY: usize = 1 << 20;

/// The most lines, and bytes of them, that the head of a request may have.
const MAX_HEAD: u64 = 64 << 10;

/// How soon it notices that it is to end.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes messages on this port until somebody asks this process to end.
pub(crate) fn run(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("failed to listen on port {port}"))?;
    listener.set_nonblocking(true)?;
    let mut output = std::io::stdout();
    while !interrupt::requested() {
        match listener.accept() {
            Ok((stream, _)) => {
                let text = take(&stream)
                    .unwrap_or_else(|error| format!("something that is no message: {error:#}\n"));
                writeln!(output, "\n--- a message for Slack ---\n{text}---")?;
                output.flush()?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error).context("failed to accept a connection"),
        }
    }
    Ok(())
}

/// Answers one request as Slack would, and says what was in it.
fn take(mut stream: &TcpStream) -> Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut head = reader.by_ref().take(MAX_HEAD);
    loop {
        let mut line = String::new();
        ensure!(head.read_line(&mut line)? > 0, "the request ends in its head");
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("its length is no number")?;
        }
    }
    ensure!(length <= MAX_BODY, "it has {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    )?;
    Ok(readable(&serde_json::from_slice(&body).context("its body is no JSON")?))
}

/// The message as Slack shows it; what has no blocks, as it is.
fn readable(message: &Value) -> String {
    let Some(blocks) = message["blocks"].as_array() else {
        return format!("{message:#}\n");
    };
    let parts = blocks.iter().flat_map(|block| {
        let lists = [&block["fields"], &block["elements"]].into_iter().filter_map(Value::as_array).flatten();
        let lines = Some(&block["text"]).filter(|text| !text.is_null()).into_iter().chain(lists);
        lines.map(|part| plain(&part["text"])).collect::<Vec<_>>()
    });
    let lines = std::iter::once(format!("notification: {}", plain(&message["text"])));
    lines.chain(parts.map(|part| format!("  {part}"))).map(|line| line + "\n").collect()
}

/// Without markup: "*Used*\n5 of 10" is "Used: 5 of 10".
fn plain(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default().replace("*\n", ": ").replace(['*', '`'], "");
    // "<url|words>" is a link.
    let text = text.replace('|', " ").replace(['<', '>'], "");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_is_shown_as_people_read_it() {
        let message = json!({
            "text": "A &amp; B has used 81 % of its quota",
            "blocks": [
                { "type": "header", "text": { "type": "plain_text", "text": "A &amp; B has used 81 %" } },
                { "type": "section", "fields": [{ "type": "mrkdwn", "text": "*Used*\n5 of 10" }] },
                { "type": "context", "elements": [{ "type": "mrkdwn", "text": "<http://x/|Open>" }] },
            ],
        });
        assert_eq!(
            readable(&message),
            "notification: A & B has used 81 % of its quota\n  A & B has used 81 %\n  Used: 5 of 10\n  http://x/ Open\n"
        );
        assert_eq!(readable(&json!({ "a": 1 })), "{\n  \"a\": 1\n}\n");
    }

    #[test]
    fn it_answers_as_slack_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let taking = std::thread::spawn(move || take(&listener.accept().unwrap().0));
        let answer = crate::samples::agent()
            .post(format!("http://{address}/services/x"))
            .send_json(json!({ "text": "hello", "blocks": [] }))
            .unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(taking.join().unwrap().unwrap(), "notification: hello\n");
    }
}
