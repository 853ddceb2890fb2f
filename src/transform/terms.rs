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
        // Convertalk spells it `DEPENDANCY`: it waits for something else.
        "blocked" | "dependancy" | "dependency" => "blocked",
        "completed" => "completed",
        "closed" => "closed",
        _ => "other",
    }
}

/// Returns the place in the funnel, `other` where the word is not known.
pub(super) fn stage(native: &str) -> &'static str {
    match folded(native).as_str() {
        "subscriber" => "subscriber",
        "lead" => "lead",
        "marketingqualified" | "marketingqualifiedlead" | "marketingqualifiedleadmql" | "mql" => {
            "marketing_qualified"
        }
        "salesqualified" | "salesqualifiedlead" | "salesqualifiedleadsql" | "sql" => {
            "sales_qualified"
        }
        "opportunity" => "opportunity",
        "customer" => "customer",
        "evangelist" => "evangelist",
        "lost" => "lost",
        _ => "other",
    }
}

/// Tells whether a lead at this stage was found worth selling to; at `lost` and `other` nobody knows.
pub(super) fn is_qualified(stage: &str) -> Option<bool> {
    match stage {
        "subscriber" | "lead" | "marketing_qualified" => Some(false),
        "sales_qualified" | "opportunity" | "customer" | "evangelist" => Some(true),
        _ => None,
    }
}

/// Returns the word in lower case without anything but letters and digits.
pub(super) fn folded(native: &str) -> String {
    if native.is_ascii() {
        let kept = native.bytes().filter(u8::is_ascii_alphanumeric);
        return kept.map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    }
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
        assert_eq!(status("DEPENDANCY"), "blocked");
        assert_eq!(stage("Marketing qualified lead (MQL)"), "marketing_qualified");
        assert_eq!(stage("Follow-up Required"), "other");
    }

    #[test]
    fn a_lead_is_qualified_from_the_sales_stages_on() {
        for (stage, qualified) in [
            ("subscriber", Some(false)),
            ("lead", Some(false)),
            ("marketing_qualified", Some(false)),
            ("sales_qualified", Some(true)),
            ("opportunity", Some(true)),
            ("customer", Some(true)),
            ("evangelist", Some(true)),
            ("lost", None),
            ("other", None),
        ] {
            assert_eq!(is_qualified(stage), qualified, "{stage}");
        }
    }
}
