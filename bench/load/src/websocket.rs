//! The client's half of a WebSocket handshake (RFC 6455 section 4.1). Frames are the gateway's own code
//! (`pinion::wire`), read and written from the other side.

use pinion::wire::upgrade::AcceptKey;

/// What is read of an answer at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// Numbers that nobody has to guess: masks protect proxies from the scripts of browsers (RFC 6455 section 10.3), and
/// nothing here comes from a stranger. Marsaglia's xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(scramble(seed).max(1))
    }

    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The key of a frame (RFC 6455 section 5.3).
    pub fn mask(&mut self) -> [u8; 4] {
        ((self.draw() >> 32) as u32).to_ne_bytes()
    }
}

/// Steele, Lea and Flood's finaliser: neighbours become strangers.
fn scramble(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `Sec-WebSocket-Key`: 16 bytes in base64. Made from a seed, so that it need not be kept until the answer comes.
pub fn key(seed: u64) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = Random::new(seed);
    let mut key: String = (0..21).map(|_| char::from(DIGITS[(random.draw() >> 58) as usize])).collect();
    // 16 bytes leave 2 bits for the last digit.
    key.push(char::from(DIGITS[(random.draw() >> 62) as usize * 16]));
    key.push_str("==");
    key
}

/// The request.
pub fn request(host: &str, path: &str, key: &str, headers: &[(String, String)]) -> Vec<u8> {
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// What the bytes of an answer are so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// More must come.
    Partial,
    /// 101 with the right key; frames begin at this byte.
    Open(usize),
    /// Another status, and OpenIM's `errCode` if the body has one.
    Refused { status: u16, code: Option<String> },
    /// Not HTTP, too long, or a 101 for another key.
    Broken,
}

/// Reads an answer. `ended`: nothing more will come.
pub fn answer(bytes: &[u8], key: &str, ended: bool) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) if !ended && bytes.len() < ANSWER_BYTES_MAX => return Answer::Partial,
        Ok(httparse::Status::Partial) | Err(_) => return Answer::Broken,
    };
    let header = |name: &str| {
        response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.trim_ascii())
    };
    let status = response.code.unwrap_or_default();
    if status == 101 {
        let confirmed = header("sec-websocket-accept")
            .is_some_and(|value| value == AcceptKey::answer_to(key.as_bytes()).text().as_bytes());
        return if confirmed { Answer::Open(head_bytes) } else { Answer::Broken };
    }
    let body = &bytes[head_bytes..];
    let length = header("content-length").and_then(|v| std::str::from_utf8(v).ok()?.parse::<usize>().ok());
    let complete = ended || bytes.len() >= ANSWER_BYTES_MAX || length.is_some_and(|n| body.len() >= n);
    if complete { Answer::Refused { status, code: error_code(body) } } else { Answer::Partial }
}

/// OpenIM's `errCode` in a JSON body (spec 1.3).
pub fn error_code(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    json.get("errCode")?.as_i64().map(|code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switching(key: &str) -> Vec<u8> {
        pinion::wire::upgrade::switching(AcceptKey::answer_to(key.as_bytes()))
    }

    #[test]
    fn the_gateway_reads_our_request_and_we_its_answer_wherever_it_is_cut() {
        let key = key(7);
        let request = request("h:1", "/?a=b", &key, &[("X-Extra".into(), "1".into())]);
        let (head, n) = pinion::wire::upgrade::parse(&request).unwrap().unwrap();
        assert_eq!((n, &*head.target), (request.len(), "/?a=b"));
        assert_eq!(head.upgrade, Ok(AcceptKey::answer_to(key.as_bytes())));
        let whole = switching(&key);
        for cut in 0..whole.len() {
            assert_eq!(answer(&whole[..cut], &key, false), Answer::Partial, "cut {cut}");
        }
        let with_frame = [&whole[..], b"\x81\x00"].concat();
        assert_eq!(answer(&with_frame, &key, false), Answer::Open(whole.len()));
        assert_eq!(answer(&with_frame, &self::key(8), false), Answer::Broken, "somebody else's key");
    }

    #[test]
    fn refusals_have_their_status_and_openims_code() {
        let refused = |body: &[u8], ended| answer(body, "k", ended);
        let json = pinion::wire::upgrade::refused(r#"{"errCode":1502,"errMsg":"x","errDlt":""}"#);
        assert_eq!(refused(&json, false), Answer::Refused { status: 200, code: Some("1502".into()) });
        assert_eq!(refused(&json[..json.len() - 5], false), Answer::Partial);
        assert_eq!(refused(&json[..json.len() - 5], true), Answer::Refused { status: 200, code: None });
        let busy = pinion::wire::upgrade::unavailable();
        assert_eq!(refused(&busy, false), Answer::Refused { status: 503, code: None });
        assert_eq!(refused(b"SSH-2.0-x\r\n", false), Answer::Broken);
        assert_eq!(refused(b"HTTP/1.1 50", true), Answer::Broken);
    }

    #[test]
    fn masks_differ() {
        let mut random = Random::new(1);
        let masks: std::collections::BTreeSet<_> = (0..1000).map(|_| random.mask()).collect();
        assert!(masks.len() > 990, "{}", masks.len());
    }
}
