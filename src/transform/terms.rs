//! Words of providers in the words of the schema, whatever their case and the signs between them.

/// Returns the channel, `other` where the word is not known.
pub(super) fn channel(native: &str) -> &'static str {
    match folded(native).as_str() {
        "phonecall" => "phone_call",
        "webform" => "web_form",
        "chat" => "chat",
        "textmessage" => "text_message",
        "email" => "email",
        "event" => "event",
        "transaction" => "transaction",
        "appointment" => "appointment",
        "whatsapp" => "whatsapp",
        "instagram" => "instagram",
        "messenger" => "messenger",
        "telegram" => "telegram",
        "sms" => "sms",
        "website" => "website",
        "manual" => "manual",
        _ => "other",
    }
}

/// Returns the state of handling, `other` where the word is not known.
pub(super) fn status(native: &str) -> &'static str {
    match folded(native).as_str() {
        "open" => "open",
        // Two examples in WhatConverts' own documents spell it `In Progess`.
        "inprogress" | "inprogess" => "in_progress",
        "review" => "review",
        "onhold" => "on_hold",
        "blocked" => "blocked",
        "completed" => "completed",
        "closed" => "closed",
        _ => "other",
    }
}

/// Returns the word in lower case without anything but letters and digits.
pub(super) fn folded(native: &str) -> String {
    native.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_signs_do_not_matter() {
        for native in ["Phone Call", "phone_call", "PHONE-CALL"] {
            assert_eq!(channel(native), "phone_call");
        }
        assert_eq!(channel("Fax"), "other");
        assert_eq!(status("In Progess"), "in_progress");
        assert_eq!(status("Lost"), "other");
    }
}
