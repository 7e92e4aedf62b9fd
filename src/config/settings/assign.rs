//! The settings of the assign API; the seventh part of the table.

use super::{Reload, Setting, Visibility, path, path_text};
use crate::config::assign::Origins;
use crate::config::value::{millis, number, optional, word};
use crate::limits;

/// Words joined by commas; nothing: none.
fn words(text: &str, good: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let one = |text: &str| word(text.trim()).filter(|text| good(text));
    if text.is_empty() { Some(Vec::new()) } else { text.split(',').map(one).collect() }
}

fn urls(text: &str) -> Option<Vec<String>> {
    let is_url = |text: &str| text.starts_with("ws://") || text.starts_with("wss://");
    words(text, is_url).filter(|urls| urls.len() <= limits::ASSIGN_FALLBACKS_MAX)
}

fn origins(text: &str) -> Option<Origins> {
    match text {
        "*" => Some(Origins::Any),
        "none" => Some(Origins::None),
        _ => {
            let host = |text: &str| {
                let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
                rest.is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
            };
            words(text, host).filter(|listed| !listed.is_empty()).map(Origins::Listed)
        }
    }
}

fn origins_text(origins: &Origins) -> String {
    match origins {
        Origins::Any => "*".to_owned(),
        Origins::None => "none".to_owned(),
        Origins::Listed(listed) => listed.join(","),
    }
}

/// What counts once `assign.listen` is set, and for `pinion dispatch`.
pub(super) const ASSIGN: &[Setting] = &[
    setting!(
        "assign.listen",
        "off",
        "`off` or an address with a port",
        "0.0.0.0:10003",
        "Where clients ask which node to dial (GET /v1/assign)",
        |d, t| d.config.assign.listen = if t == "off" { None } else { Some(t.parse().ok()?) },
        |c| c.assign.listen.map_or_else(|| "off".to_owned(), |listen| listen.to_string())
    ),
    setting!(
        "assign.rules",
        "",
        "the path of a file, or nothing",
        "/etc/pinion/assign.rules",
        "Rules that come before load, one per line, as `pinion route where --rules` reads them (tuning/assign.md)",
        |d, t| d.config.assign.policy.rules_file = optional(t, path)?,
        |c| path_text(c.assign.policy.rules_file.as_ref()),
        Live
    ),
    setting!(
        "assign.fallback",
        "",
        "nothing, or at most 64 URLs with ws:// or wss:// joined by commas",
        "wss://gateway-0.example.com/,wss://gateway-1.example.com/",
        "What is handed out, marked as static, when no member is known or none answers; nothing: 503",
        |d, t| d.config.assign.policy.decision.fallback = urls(t)?,
        |c| c.assign.policy.decision.fallback.join(","),
        Live
    ),
    setting!(
        "assign.allow_origin",
        "*",
        "`*`, `none`, or origins like https://app.example.com joined by commas",
        "https://app.example.com",
        "Pages of which sites may read answers (CORS)",
        |d, t| d.config.assign.policy.origins = origins(t)?,
        |c| origins_text(&c.assign.policy.origins),
        Live
    ),
    setting!(
        "assign.ttl_ms",
        "30s",
        "a time from 1s to 3600s (plain number = milliseconds)",
        "60s",
        "A client may keep an answer for so long, in whole seconds (Cache-Control)",
        |d, t| d.config.assign.policy.decision.ttl_ms = millis(t, 1_000..=3_600_000)?,
        |c| c.assign.policy.decision.ttl_ms,
        Live
    ),
    setting!(
        "assign.backoff_base_ms",
        "1s",
        "a time from 100ms to 60s (plain number = milliseconds)",
        "2s",
        "A client that lost its connection waits so long before its first attempt, doubling from there",
        |d, t| d.config.assign.policy.decision.backoff.first_ms = millis(t, 100..=60_000)?,
        |c| c.assign.policy.decision.backoff.first_ms,
        Live
    ),
    setting!(
        "assign.backoff_cap_ms",
        "60s",
        "a time from 1s to 3600s (plain number = milliseconds)",
        "30s",
        "... and at most so long",
        |d, t| d.config.assign.policy.decision.backoff.most_ms = millis(t, 1_000..=3_600_000)?,
        |c| c.assign.policy.decision.backoff.most_ms,
        Live
    ),
    setting!(
        "assign.jitter_percent",
        "50",
        "a number from 0 to 100",
        "80",
        "Of its waiting a client takes off up to so much at random, so that not all come back at once",
        |d, t| d.config.assign.policy.decision.backoff.jitter_percent = number(t, 0..=100)?,
        |c| c.assign.policy.decision.backoff.jitter_percent,
        Live
    ),
    setting!(
        "assign.load_max",
        "90",
        "a number from 1 to 100",
        "80",
        "A node filled to so many percent of its connections_max goes behind the others",
        |d, t| d.config.assign.policy.decision.full_permille = number(t, 1..=100_u16)? * 10,
        |c| c.assign.policy.decision.full_permille / 10,
        Live
    ),
    setting!(
        "assign.address_requests_per_s",
        "50",
        "a number from 0 to 1000000 (0 = any number)",
        "20",
        "One address may ask so often; a burst of 10 s at once",
        |d, t| d.config.assign.policy.rates.address_per_s = number(t, 0..=1_000_000)?,
        |c| c.assign.policy.rates.address_per_s,
        Live
    ),
    setting!(
        "assign.requests_per_s",
        "2000",
        "a number from 0 to 1000000 (0 = any number)",
        "5000",
        "All together may ask so often; a burst of 10 s at once",
        |d, t| d.config.assign.policy.rates.all_per_s = number(t, 0..=1_000_000)?,
        |c| c.assign.policy.rates.all_per_s,
        Live
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_list_has_urls_and_not_too_many() {
        let listed = |count: usize| vec!["ws://a"; count].join(",");
        assert_eq!(urls(&listed(limits::ASSIGN_FALLBACKS_MAX)).unwrap().len(), limits::ASSIGN_FALLBACKS_MAX);
        assert_eq!(urls(&listed(limits::ASSIGN_FALLBACKS_MAX + 1)), None);
        assert_eq!(urls(""), Some(Vec::new()));
        for bad in ["http://a", "ws://a,", "ws://a b"] {
            assert_eq!(urls(bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_are_sites_and_not_pages() {
        assert_eq!(origins("*"), Some(Origins::Any));
        assert_eq!(origins("none"), Some(Origins::None));
        let listed = vec!["https://a".to_owned(), "http://b:8080".to_owned()];
        assert_eq!(origins("https://a, http://b:8080"), Some(Origins::Listed(listed)));
        for bad in ["", "a", "https://", "https://a/", "https://a,*"] {
            assert_eq!(origins(bad), None, "{bad}");
        }
    }
}
