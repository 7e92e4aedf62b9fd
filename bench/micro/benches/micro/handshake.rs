//! A handshake without its socket, step by step and as a whole.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pinion::backend::token;
use pinion::session::handshake::{Judgement, Login, Rules, Strictness, judge};
use pinion::wire::compat::Compat;
use pinion::wire::upgrade::{self, AcceptKey, Head};
use pinion_bench_micro::{NOW, SECRET, head};

fn parsed(bytes: &[u8]) -> Head {
    let (head, _) = upgrade::parse(bytes).expect("is a head").expect("is complete");
    head
}

fn judged(head: &Head) -> Box<Login> {
    match judge(head, Rules { compat: Compat::Main, strictness: Strictness::Strict }) {
        Judgement::Login(login) => login,
        other => panic!("{other:?}"),
    }
}

/// Handshakes per second: `head` parses and computes the accept key (which `accept key` is alone), `arguments` are
/// judged, `token` checks an HS256 JWT, `101` writes the answer; `whole` is all of them.
pub(super) fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    let bytes = head();
    let head = parsed(&bytes);
    let login = judged(&head);
    let accept = login.upgrade.expect("is an upgrade");
    group.bench_function("head", |b| b.iter(|| parsed(black_box(&bytes))));
    group.bench_function("accept key", |b| {
        b.iter(|| AcceptKey::answer_to(black_box(b"dGhlIHNhbXBsZSBub25jZQ==")));
    });
    group.bench_function("arguments", |b| b.iter(|| judged(black_box(&head))));
    group.bench_function("token", |b| {
        b.iter(|| token::verify(SECRET, black_box(&login.token), NOW).expect("is good"))
    });
    group.bench_function("101", |b| b.iter(|| upgrade::switching(black_box(accept))));
    group.bench_function("whole", |b| {
        b.iter(|| {
            let login = judged(&parsed(black_box(&bytes)));
            token::verify(SECRET, &login.token, NOW).expect("is good");
            upgrade::switching(login.upgrade.expect("is an upgrade"))
        });
    });
    group.finish();
}
