//! Tests of `tls` and `pem`: what each file can have wrong, and what is only warned about.

use std::path::PathBuf;

use super::super::authority::{Authority, When, write};
use super::super::pem::lapse;
use super::*;

const DAY_MS: i64 = 86_400_000;
/// 2026-01-01.
const NOW: UnixMs = UnixMs(20_454 * DAY_MS);

struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("test CA", When::Now);
        let (cert, key) = authority.write_pair(dir.path(), "gateway", &["127.0.0.1"], When::Now);
        let ca = authority.write(dir.path(), "clients");
        Self { dir, authority, cert, key, ca }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        write(self.dir.path(), name, text)
    }
}

fn config(cert: Option<&Path>, key: Option<&Path>, client_ca: Option<&Path>) -> RpcConfig {
    RpcConfig {
        tls_cert: cert.map(Path::to_owned),
        tls_key: key.map(Path::to_owned),
        tls_client_ca: client_ca.map(Path::to_owned),
        ..RpcConfig::at("127.0.0.1:0".parse().unwrap())
    }
}

/// Faults, warnings.
fn judge(config: &RpcConfig) -> (Vec<TlsFault>, Vec<String>) {
    let mut warnings = Vec::new();
    let faults = load(config, NOW, &mut warnings).err().unwrap_or_default();
    (faults, warnings)
}

#[test]
fn good_files_are_tls_without_faults_or_warnings() {
    let files = Files::new();
    for ca in [None, Some(files.ca.as_path())] {
        let mut warnings = Vec::new();
        let tls = load(&config(Some(&files.cert), Some(&files.key), ca), NOW, &mut warnings).unwrap();
        let config = tls.unwrap().0;
        assert_eq!(config.alpn_protocols, [ALPN_H2]);
        assert!(!config.session_storage.can_cache() && config.send_tls13_tickets == 0);
        assert_eq!(warnings, Vec::<String>::new());
    }
    assert!(load(&config(None, None, None), NOW, &mut Vec::new()).unwrap().is_none());
}

#[test]
fn files_that_belong_together_come_together() {
    let files = Files::new();
    let (cert, key, ca) = (Some(files.cert.as_path()), Some(files.key.as_path()), Some(files.ca.as_path()));
    for (config, setting, text) in [
        (config(cert, None, None), KEY, "needed beside rpc.tls_cert"),
        (config(cert, None, ca), KEY, "needed beside rpc.tls_cert"),
        (config(None, key, None), CERT, "needed beside rpc.tls_key"),
        (config(None, key, ca), CERT, "needed beside rpc.tls_key"),
        (config(None, None, ca), CERT, "needed for rpc.tls_client_ca"),
    ] {
        let (faults, _) = judge(&config);
        assert!(faults.len() == 1 && faults[0].0 == setting && faults[0].1.starts_with(text), "{faults:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_of_that_file() {
    let files = Files::new();
    let (_, other_key) = files.authority.issue(&["127.0.0.1"], When::Now);
    let cut = files.authority.pem().split_at(200).0.to_owned();
    let certificate =
        |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let key = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let large = "x".repeat(usize::try_from(crate::limits::TLS_FILE_BYTES).unwrap());
    for (setting, content, text) in [
        (CERT, None, "cannot be read: No such file"),
        (CERT, Some(""), "no certificate in PEM form"),
        (CERT, Some(large.as_str()), "no certificate in PEM form"),
        (CERT, Some(&(large.clone() + "x")), "larger than 1048576 bytes"),
        (CERT, Some("\u{30}\u{82}\u{1}\u{2}"), "no certificate in PEM form"),
        (CERT, Some(&cut), "broken PEM: a section has no END line"),
        (CERT, Some(&certificate("not base64!")), "broken PEM: a section is not base64"),
        (
            CERT,
            Some(&certificate("MAAA")),
            "the first certificate of it is no X.509 certificate of version 3",
        ),
        (KEY, None, "cannot be read: No such file"),
        (KEY, Some(files.authority.pem()), "no private key in PEM form"),
        (KEY, Some(&key("ENCRYPTED PRIVATE KEY", "AAAA")), "the key in it is encrypted"),
        (KEY, Some(&key("PRIVATE KEY", "AAAA")), "a kind of key that cannot be used"),
        (KEY, Some(&other_key), "does not fit the certificate"),
        (CLIENT_CA, None, "cannot be read: No such file"),
        (CLIENT_CA, Some("# none yet\n"), "no certificate in PEM form"),
        (
            CLIENT_CA,
            Some(&(files.authority.pem().to_owned() + &certificate("AAAA"))),
            "certificate 2 of it is no X.509",
        ),
    ] {
        let path = match content {
            Some(content) => files.write("wrong.pem", content),
            None => files.dir.path().join("missing.pem"),
        };
        let mut config = config(Some(&files.cert), Some(&files.key), Some(&files.ca));
        let place = match setting {
            CERT => &mut config.tls_cert,
            KEY => &mut config.tls_key,
            _ => &mut config.tls_client_ca,
        };
        *place = Some(path);
        let (faults, _) = judge(&config);
        assert_eq!(faults.len(), 1, "{setting} {text}: {faults:?}");
        assert!(faults[0].0 == setting && faults[0].1.starts_with(text), "{setting} {text}: {faults:?}");
        assert!(!faults[0].1.contains("BEGIN PRIVATE"), "no content: {faults:?}");
    }
    let nothing = files.dir.path().join("missing.pem");
    let (faults, _) = judge(&config(Some(&nothing), Some(&nothing), Some(&nothing)));
    assert_eq!(faults.len(), 3, "all at once: {faults:?}");
}

#[test]
fn certificates_out_of_their_time_and_open_keys_are_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let dir = files.dir.path();
    for (when, text) in [(When::Past, "expired "), (When::Future, "becomes valid in ")] {
        let (cert, key) = files.authority.write_pair(dir, "lapsed", &["127.0.0.1"], when);
        let ca = Authority::new("lapsed CA", when).write(dir, "lapsed");
        let (faults, warnings) = judge(&config(Some(&cert), Some(&key), Some(&ca)));
        assert_eq!(faults, []);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for (warning, setting) in warnings.iter().zip([CERT, CLIENT_CA]) {
            assert!(warning.starts_with(setting) && warning.contains(text), "{warning}");
        }
    }
    for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(mode)).unwrap();
        let (_, warnings) = judge(&config(Some(&files.cert), Some(&files.key), None));
        assert_eq!(warnings.len(), usize::from(open), "{mode:o}: {warnings:?}");
        assert!(warnings.iter().all(|w| w.contains("can be read by everybody")), "{warnings:?}");
    }
}

#[test]
fn the_days_of_a_lapse_are_counted() {
    let authority = Authority::new("test CA", When::Now);
    let of = |when| {
        let path = files_of(&authority.issue(&["a"], when).0);
        pem::certificates(path.path()).unwrap().remove(0)
    };
    // The last moment is 2001-01-01, the first 3000-01-01.
    let (last, first) = (UnixMs(11_323 * DAY_MS), UnixMs(376_200 * DAY_MS));
    for (when, now, want) in [
        (When::Now, NOW, None),
        (When::Past, last, None),
        (When::Past, UnixMs(last.0 + 1_000), Some("expired 0 days ago")),
        (When::Past, UnixMs(last.0 + 3 * DAY_MS), Some("expired 3 days ago")),
        (When::Future, first, None),
        (When::Future, UnixMs(first.0 - 1_000), Some("becomes valid in 1 days")),
        (When::Future, UnixMs(first.0 - 2 * DAY_MS), Some("becomes valid in 2 days")),
    ] {
        assert_eq!(lapse(&of(when), now).as_deref(), want, "{when:?} {now:?}");
    }
}

fn files_of(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}
