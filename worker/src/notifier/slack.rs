//! Slack's incoming webhooks: the message in Block Kit, and what their answers mean.
//!
//! Limits and escapes are those of Slack's documentation ("Block Kit", "Formatting text for app surfaces"), the answers
//! those of "Sending messages using incoming webhooks".

use flagmeter_core::delivery::Attempt;
use serde_json::{Value, json};

use super::message::Message;
use super::post::Answer;
use super::{Verdict, redirected};

/// The most characters of a header's text.
const HEADER_LIMIT: usize = 150;

/// The longest name that is shown elsewhere; the limits there (2,000 of a field, 3,000 of a text) are far away then.
const NAME_LIMIT: usize = 300;

/// The message, whose `text` is what notifications and screen readers have of it.
pub(super) fn body(message: &Message<'_>) -> Value {
    let name = escaped(&message.taken.tenant_name, NAME_LIMIT);
    let title_without_name = message.title("").chars().count();
    let short_name = escaped(&message.taken.tenant_name, HEADER_LIMIT - title_without_name);

    let (resets, it_resets) = if message.is_over() { ("Reset", "It reset") } else { ("Resets", "It resets") };
    let field = |label: &str, text: String| mrkdwn(&format!("*{label}*\n{text}"));
    let mut fields = vec![
        field("Used", message.used()),
        field("Threshold", format!("{} %", message.taken.threshold)),
        field("Billing period", message.period()),
        field(resets, message.resets()),
    ];
    fields.extend(message.exhausted().map(|text| field("Used up, at the present rate", text)));
    let mut context = vec![mrkdwn(&format!("FlagMeter · tenant `{}`", message.taken.tenant))];
    context.extend(message.link().map(|url| mrkdwn(&format!("<{}|Open the dashboard>", escape(&url)))));
    json!({
        "text": format!("{}: {}. {it_resets} {}.", message.title(&name), message.used(), message.resets()),
        "blocks": [
            { "type": "header", "text": { "type": "plain_text", "text": message.title(&short_name) } },
            { "type": "section", "fields": fields },
            { "type": "context", "elements": context },
        ],
    })
}

/// Slack finds no links and no names in it by itself.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "verbatim": true, "text": text })
}

/// The three characters by which Slack's markup begins and ends.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// As much of `text` on one line as fits into `limit` characters once it is escaped.
fn escaped(text: &str, limit: usize) -> String {
    let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let whole = escape(&line);
    if whole.chars().count() <= limit {
        return whole;
    }
    let mut short = String::new();
    let mut length = 0;
    for char in line.chars() {
        let piece = escape(char.encode_utf8(&mut [0; 4]));
        length += piece.chars().count();
        if length >= limit {
            break;
        }
        short.push_str(&piece);
    }
    short + "…"
}

/// Slack's words for a refusal. Nothing else of its answer is repeated.
const REASONS: [(&str, &str); 9] = [
    (
        "no_service",
        "the webhook was removed or turned off; make a new one and put its URL into the tenant's settings",
    ),
    ("no_service_id", "the webhook's URL is not complete; correct it in the tenant's settings"),
    ("no_team", "the workspace does not exist; correct the URL in the tenant's settings"),
    (
        "invalid_token",
        "the webhook's URL is not valid any more; make a new one and put it into the tenant's settings",
    ),
    ("channel_not_found", "the channel does not exist any more; make a webhook for another one"),
    ("channel_is_archived", "the channel is archived; restore it, or make a webhook for another one"),
    ("action_prohibited", "the workspace's administrators do not allow the webhook to post"),
    ("user_not_found", "the user whom the webhook writes to does not exist; make a webhook for a channel"),
    ("invalid_payload", "it could not read the message; please report this as a fault of FlagMeter"),
];

/// What Slack's answer means.
pub(super) fn judge(answer: &Answer) -> Verdict {
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return Verdict::taken();
    }
    let text = String::from_utf8_lossy(&answer.body);
    let reason = REASONS.iter().find(|(word, _)| text.trim() == *word);
    let why = match reason {
        Some((word, meaning)) => format!("Slack answered {status} {word}: {meaning}"),
        None => match status {
            400 => "Slack answered 400: it did not take the message".to_owned(),
            403 | 404 | 410 => format!(
                "Slack answered {status}: the webhook does not work any more; make a new one and put its URL into the tenant's settings"
            ),
            300..=399 => redirected(status),
            429 => "Slack answered 429: too many messages".to_owned(),
            _ => format!("Slack answered {status}"),
        },
    };
    let attempt = match status {
        // Slack redirects nobody, so a redirect says that the URL is another one: only an edit helps.
        300..=399 | 400 | 403 | 404 | 410 => Attempt::Refused,
        _ => Attempt::Failed { retry_after: None },
    };
    Verdict { attempt, why }
}

#[cfg(test)]
mod tests;
