//! OpenIM's HTTP API, as far as tokens need it: HTTP/1.1 over plain TCP, one request at a time on one connection.
//!
//! Versions 3.7 and later give an administrator's token for the secret, and users' tokens for that
//! (`/auth/get_admin_token`, `/auth/get_user_token`); before, the secret was enough (`/auth/user_token`), which is what
//! is asked where the first is not found.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

/// No answer takes so long.
const DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// OpenIM's own administrator.
const ADMIN: &str = "imAdmin";
/// `errCode` of a user that is there already.
const REGISTERED_ALREADY: i64 = 1102;

/// One connection to the API.
pub struct Api {
    socket: TcpStream,
    host: String,
    /// What stands before the API's own paths, for one behind a proxy.
    prefix: String,
    secret: String,
    /// `None`: an API before 3.7.
    admin: Option<String>,
    requests: u64,
}

impl Api {
    /// Connects, and gets the administrator's token.
    ///
    /// # Errors
    /// A URL that is not `http://`, nobody there, or a wrong secret.
    pub fn connect(url: &str, secret: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!("{url}: only http:// is spoken here; for https:// get the tokens elsewhere and give them in a file")
        })?;
        let (host, prefix) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let socket = TcpStream::connect(&address).map_err(|error| format!("{url}: {error}"))?;
        let deadlines = socket
            .set_read_timeout(Some(DEADLINE))
            .and_then(|()| socket.set_write_timeout(Some(DEADLINE)))
            .and_then(|()| socket.set_nodelay(true));
        deadlines.map_err(|error| format!("{url}: {error}"))?;
        let prefix = prefix.trim_end_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let mut api = Self {
            socket,
            host: host.to_owned(),
            prefix,
            secret: secret.to_owned(),
            admin: None,
            requests: 0,
        };
        let asked = json!({ "secret": secret, "userID": ADMIN });
        if let Some(answer) = api.post("/auth/get_admin_token", &asked)? {
            api.admin = Some(token_of("/auth/get_admin_token", &answer)?);
        }
        Ok(api)
    }

    /// Makes a user, who may be there already.
    ///
    /// # Errors
    /// The API's own text.
    pub fn register(&mut self, user: &str) -> Result<(), String> {
        let path = "/user/user_register";
        let asked = json!({
            "secret": self.secret, "users": [{ "userID": user, "nickname": user, "faceURL": "" }],
        });
        let answer = self.post(path, &asked)?.ok_or_else(|| format!("{path}: not found"))?;
        match code_of(&answer) {
            0 | REGISTERED_ALREADY => Ok(()),
            _ => Err(format!("{path}: {answer}")),
        }
    }

    /// A user's token.
    ///
    /// # Errors
    /// The API's own text.
    pub fn token(&mut self, user: &str, platform: i32) -> Result<String, String> {
        let path = if self.admin.is_some() { "/auth/get_user_token" } else { "/auth/user_token" };
        let asked = json!({ "secret": self.secret, "platformID": platform, "userID": user });
        let answer = self.post(path, &asked)?.ok_or_else(|| format!("{path}: not found"))?;
        token_of(path, &answer)
    }

    /// `None`: there is no such path.
    fn post(&mut self, path: &str, body: &Value) -> Result<Option<Value>, String> {
        let body = body.to_string();
        self.requests += 1;
        let token = self.admin.as_ref().map(|token| format!("token: {token}\r\n")).unwrap_or_default();
        let request = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             operationID: bench-{}\r\n{token}\r\n{body}",
            self.prefix,
            self.host,
            body.len(),
            self.requests
        );
        let failed = |error: std::io::Error| format!("{path}: {error}");
        self.socket.write_all(request.as_bytes()).map_err(failed)?;
        let (status, body) = self.answer().map_err(|why| format!("{path}: {why}"))?;
        match status {
            404 => Ok(None),
            200 => {
                serde_json::from_slice(&body).map(Some).map_err(|error| format!("{path}: no JSON: {error}"))
            }
            _ => Err(format!("{path}: status {status}: {}", String::from_utf8_lossy(&body))),
        }
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>), String> {
        let mut bytes = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let n = self.socket.read(&mut chunk).map_err(|error| error.to_string())?;
            bytes.extend_from_slice(&chunk[..n]);
            if let Some(answer) = parse(&bytes)? {
                return Ok(answer);
            }
            if n == 0 || bytes.len() > ANSWER_BYTES_MAX {
                return Err("the answer is cut short, or too long".to_owned());
            }
        }
    }
}

/// Status and body, once all of it is there.
///
/// # Errors
/// Not HTTP/1.1, or a body whose length is not said.
pub fn parse(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(|error| format!("not HTTP: {error}"))? {
        httparse::Status::Complete(n) => n,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    let header = |name: &str| {
        let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
        found.and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let body = &bytes[head..];
    if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Ok(chunks(body)?.map(|body| (status, body)));
    }
    let length = match header("content-length") {
        Some(text) => text.parse::<usize>().map_err(|_| format!("a body of {text:?} bytes"))?,
        None if matches!(status, 204 | 304) => 0,
        None => return Err("a body whose length is not said".to_owned()),
    };
    Ok(body.get(..length).map(|body| (status, body.to_vec())))
}

/// A chunked body (RFC 9112 section 7.1), without trailers.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        match httparse::parse_chunk_size(rest).map_err(|_| "a broken chunk".to_owned())? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete((_, 0)) => return Ok(Some(body)),
            httparse::Status::Complete((head, length)) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let end = head.saturating_add(length);
                let (Some(chunk), true) = (rest.get(head..end), rest.len() >= end.saturating_add(2)) else {
                    return Ok(None);
                };
                body.extend_from_slice(chunk);
                rest = &rest[end + 2..];
            }
        }
    }
}

fn code_of(answer: &Value) -> i64 {
    answer.get("errCode").and_then(Value::as_i64).unwrap_or(-1)
}

fn token_of(path: &str, answer: &Value) -> Result<String, String> {
    let token = answer.pointer("/data/token").and_then(Value::as_str);
    match token {
        Some(token) if code_of(answer) == 0 => Ok(token.to_owned()),
        _ => Err(format!("{path}: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers requests on one connection in their order; gives their heads and bodies.
    fn serve(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let thread = std::thread::Builder::new().spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            for answer in answers {
                let mut text = String::new();
                while !text.ends_with('}') {
                    let mut bytes = [0; 4096];
                    let n = socket.read(&mut bytes).unwrap();
                    assert!(n > 0, "cut: {text}");
                    text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
                }
                seen.push(text);
                socket.write_all(answer.as_bytes()).unwrap();
            }
            seen
        });
        (url, thread.unwrap())
    }

    #[test]
    fn a_token_is_asked_for_with_the_administrators() {
        let (url, server) = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{\"errCode\":0,\"data\":{\"token\":\"admin\"}}",
            "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"errCode\":1102}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n25\r\n{\"errCode\":0,\"data\":{\"token\":\"user\"}}\r\n0\r\n\r\n",
        ]);
        let mut api = Api::connect(&url, "s").unwrap();
        api.register("u1").unwrap();
        assert_eq!(api.token("u1", 5).unwrap(), "user");
        let seen = server.join().unwrap();
        assert!(
            seen[0].starts_with("POST /api/auth/get_admin_token ") && seen[0].contains("imAdmin"),
            "{seen:?}"
        );
        assert!(
            seen[1].starts_with("POST /api/user/user_register ") && seen[1].contains("token: admin"),
            "{seen:?}"
        );
        assert!(
            seen[2].starts_with("POST /api/auth/get_user_token ") && seen[2].contains("\"platformID\":5"),
            "{seen:?}"
        );
    }

    #[test]
    fn an_older_api_is_asked_with_the_secret() {
        let (url, server) = serve(&[
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
            "HTTP/1.1 200 OK\r\nContent-Length: 37\r\n\r\n{\"errCode\":0,\"data\":{\"token\":\"user\"}}",
        ]);
        assert_eq!(Api::connect(&url, "s").unwrap().token("u1", 1).unwrap(), "user");
        assert!(server.join().unwrap()[1].starts_with("POST /api/auth/user_token "));
    }

    #[test]
    fn refusals_are_told_in_words() {
        let why = |url: &str| Api::connect(url, "s").err().unwrap();
        assert!(why("https://a").contains("only http://"));
        let (url, server) = serve(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 35\r\n\r\n{\"errCode\":1001,\"errMsg\":\"ArgsErr\"}",
        ]);
        let text = why(&url);
        assert!(text.contains("/auth/get_admin_token") && text.contains("ArgsErr"), "{text}");
        server.join().unwrap();
    }
}
