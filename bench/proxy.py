#!/usr/bin/env python3
"""pinion proxy beside nginx and HAProxy: what an idle pair, a relayed message and a handshake cost.

    bench/proxy.py [--quick] [--rounds N] [--pairs N] [--pinion PATH] [--only NAME,..] [--calls] [--json FILE]

Each subject runs with one thread on CPU 0; clients and the member behind it, both in this script, run on CPU 1. One
round measures each subject once, in turn, beginning with another one each time (A B C, B C A, ..); printed are median and
spread (least to most) over the rounds. CPU is user and system time of all processes of the subject, from /proc; memory is
their PSS, as the slope between no pair and all pairs, so what a subject costs empty does not count. Kernel memory of the
sockets is the same for all and is not in it. A message is 100 bytes and small enough to be moved at once; none of the
three parses it.

With --calls relayed messages are told in system calls that strace counts, instead of CPU and wall time, which it spoils.

`direct` is the physical bound: the same clients on the member itself, with nothing between. It has no CPU of its own;
its wall times are what the machine, the clients and the member take, and no proxy can be below them.

nginx and HAProxy are Debian's packages, installed by apt if they are not there. Quiet machine, release build:

    cargo build --release -p pinion && bench/proxy.py --json work/bench/proxy.json
"""
import argparse, base64, hashlib, json, os, resource, select, shutil, signal, socket, statistics, subprocess, sys
import tempfile, time
import multiprocessing

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEAD = (b"GET /?sendID=user%d HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + GUID).digest())
SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n")
MESSAGE = b"\x82\x62" + b"x" * 98  # one binary frame, 100 bytes on the wire
PUSH = b"\x81\x04push"  # asks the member to send MESSAGE to every pair

NGINX = """worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 19000; }}
http {{ access_log off; client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  upstream members {{ server 127.0.0.1:{member}; }}
  server {{ listen 127.0.0.1:{port} reuseport backlog=4096; location / {{ proxy_pass http://members; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; proxy_set_header Host $host;
    proxy_read_timeout 1h; proxy_send_timeout 1h; }} }} }}
"""
HAPROXY = """global
  maxconn 9000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
frontend clients
  bind 127.0.0.1:{port} backlog 4096
  default_backend members
backend members
  server one 127.0.0.1:{member}
"""


def pin(cpu):
    if os.cpu_count() > 1:
        os.sched_setaffinity(0, {cpu})


def member_process(listener, stop):
    """Answers 101 to each connection and echoes what follows; PUSH makes it send MESSAGE to all."""
    pin(1)
    poll = select.epoll()
    listener.setblocking(False)
    poll.register(listener, select.EPOLLIN)
    pairs, heads = {}, {}
    while not stop.is_set():
        for fd, _ in poll.poll(0.5):
            if fd == listener.fileno():
                while True:
                    try:
                        peer, _ = listener.accept()
                    except BlockingIOError:
                        break
                    peer.setblocking(False)
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    pairs[peer.fileno()], heads[peer.fileno()] = peer, b""
                    poll.register(peer, select.EPOLLIN)
                continue
            peer = pairs[fd]
            try:
                data = peer.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                poll.unregister(fd)
                del pairs[fd]
                heads.pop(fd, None)
                peer.close()
            elif fd in heads:
                heads[fd] += data
                if b"\r\n\r\n" in heads[fd]:
                    del heads[fd]
                    peer.send(SWITCH)
            elif data == PUSH:
                for other in pairs.values():
                    other.send(MESSAGE)
            else:
                peer.send(data)


class Direct:
    """No proxy: clients are at the member's port."""

    name, command = "direct", "clients on the member itself"

    def __init__(self, member):
        self.port = member

    def cpu_s(self):
        return 0.0

    def pss_kib(self):
        return 0

    def stop(self):
        pass


class Subject:
    """A started proxy: its processes, its port."""

    def __init__(self, name, pinion, member):
        self.name, self.dir = name, tempfile.mkdtemp(prefix="bench-proxy-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        fill = {"dir": self.dir, "port": self.port, "member": member}
        path = os.path.join(self.dir, "conf")
        if name == "pinion":
            text, command = f"a ws=ws://127.0.0.1:{member}\n", [
                pinion, "proxy", "--listen", f"127.0.0.1:{self.port}", "--members", path, "--threads", "1",
                "--http-listen", "127.0.0.1:0", "--log-level", "warn"]
        elif name == "nginx":
            text, command = NGINX.format(**fill), ["nginx", "-c", path, "-e", f"{self.dir}/error.log"]
        else:
            text, command = HAPROXY.format(**fill), ["haproxy", "-db", "-f", path]
        with open(path, "w") as file:
            file.write(text)
        self.command = " ".join(command)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=lambda: pin(0), start_new_session=True)
        end = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    sys.exit(f"{name} does not start: {self.command}\nsee {self.dir}")
                time.sleep(0.05)

    def pids(self):
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [self.process.pid] + [int(pid) for pid in open(children).read().split()]

    def cpu_s(self):
        """Nanosecond run time of all threads; coarser clocks lose short runs."""
        total = 0
        for pid in self.pids():
            for task in os.listdir(f"/proc/{pid}/task"):
                total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
        return total / 1e9

    def pss_kib(self):
        total = 0
        for pid in self.pids():
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM if self.name != "pinion" else signal.SIGINT)
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Calls:
    """System calls of a subject from now on, by kind."""

    KINDS = {"recvfrom": "receives", "recvmsg": "receives", "read": "receives", "readv": "receives",
             "sendto": "sends", "sendmsg": "sends", "write": "sends", "writev": "sends",
             "epoll_wait": "waits", "epoll_pwait": "waits", "epoll_pwait2": "waits"}
    OTHER = "other calls"
    NONE = dict.fromkeys([*KINDS.values(), OTHER])

    def __init__(self, subject):
        self.report = os.path.join(subject.dir, "calls")
        command = ["strace", "-c", "-f", "-U", "calls,name", "-o", self.report]
        for pid in subject.pids():
            command += ["-p", str(pid)]
        self.strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for _ in subject.pids():
            said = self.strace.stderr.readline()
            if "attached" not in said:
                sys.exit(f"strace: {said}")

    def end(self):
        self.strace.send_signal(signal.SIGINT)
        self.strace.communicate()
        found = dict.fromkeys(self.NONE, 0)
        for line in open(self.report):
            words = line.split()
            if len(words) == 2 and words[0].isdigit() and words[1] != "total":
                found[self.KINDS.get(words[1], self.OTHER)] += int(words[0])
        return found


def receive(peer, n):
    left = n
    while left:
        data = peer.recv(left)
        if not data:
            raise RuntimeError("a pair was closed")
        left -= len(data)


def handshake(port, number):
    peer = socket.create_connection(("127.0.0.1", port), 10)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.sendall(HEAD % number)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        data = peer.recv(4096)
        if not data:
            raise RuntimeError(f"no 101: {answer!r}")
        answer += data
    if b" 101 " not in answer:
        raise RuntimeError(f"no 101: {answer!r}")
    return peer


def measure(subject, args):
    """One subject, once: figures by name. `None`: it has no such figure."""
    port, found = subject.port, {}
    own = None if subject.name == "direct" else 1
    for n in range(50):  # whatever is built up once
        handshake(port, n).close()
    time.sleep(args.settle)
    empty = subject.pss_kib()

    def timed(what, unit, messages, work):
        """CPU of the subject and wall time for `work`, a message of it."""
        counted = args.calls and unit == "relayed message"
        calls = Calls(subject) if own and counted else None
        cpu, start = subject.cpu_s(), time.monotonic()
        done = work()
        wall = time.monotonic() - start
        if counted:
            kinds = calls.end() if calls else Calls.NONE
            found.update({f"{what}, {kind} per {unit}": own and n / messages for kind, n in kinds.items()})
            return done
        found[f"{what}, us CPU per {unit}"] = own and (subject.cpu_s() - cpu) / messages * 1e6
        found[f"{what}, us wall per {unit}"] = wall / messages * 1e6
        return done

    pairs = timed("handshake, one after the other", "handshake", args.pairs,
                  lambda: [handshake(port, n) for n in range(args.pairs)])
    time.sleep(args.settle)
    found["idle pair, bytes"] = own and (subject.pss_kib() - empty) * 1024 / args.pairs
    before, start = subject.cpu_s(), time.monotonic()
    time.sleep(args.idle)
    idle_s = time.monotonic() - start
    found["1000 idle pairs, us CPU per s"] = own and (subject.cpu_s() - before) / idle_s / args.pairs * 1000 * 1e6

    def echo_one():
        for n in range(args.echoes):
            peer = pairs[n % len(pairs)]
            peer.sendall(MESSAGE)
            receive(peer, len(MESSAGE))

    def echo_waves():
        for _ in range(args.waves):
            for peer in pairs:
                peer.sendall(MESSAGE)
            for peer in pairs:
                receive(peer, len(MESSAGE))

    def push_all():
        for _ in range(args.waves):
            pairs[0].sendall(PUSH)
            for peer in pairs:
                receive(peer, len(MESSAGE))

    timed("echo, one at a time", "relayed message", args.echoes * 2, echo_one)
    timed("echo, in waves", "relayed message", args.waves * len(pairs) * 2, echo_waves)
    timed("push to all", "relayed message", args.waves * len(pairs), push_all)
    for peer in pairs:
        peer.close()
    return found


def cell(values):
    """Median and spread of the rounds."""
    if None in values:
        return "-"
    digits = 0 if statistics.median(values) >= 100 else 3 if 0 < max(values) < 2 else 1
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def version(name, pinion):
    if name == "direct":
        return "the bound"
    command = {"pinion": [pinion, "--version"], "nginx": ["nginx", "-v"], "haproxy": ["haproxy", "-v"]}[name]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some seconds, to see that it works; no figures to quote")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--echoes", type=int, default=20000)
    parser.add_argument("--waves", type=int, default=20)
    parser.add_argument("--idle", type=float, default=10.0, help="seconds that idle pairs are watched")
    parser.add_argument("--settle", type=float, default=2.0)
    parser.add_argument("--pinion", default="target/release/pinion")
    parser.add_argument("--only", default="direct,pinion,nginx,haproxy")
    parser.add_argument("--calls", action="store_true", help="count system calls instead (needs strace)")
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.pairs, args.echoes, args.waves, args.idle, args.settle = 1, 100, 200, 2, 0.3, 0.2
    names = args.only.split(",")
    for name in names:
        if name in ("nginx", "haproxy") and not shutil.which(name):
            subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", name], check=True, stdout=sys.stderr)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the subjects, too
    if hard < 2 * args.pairs + 500:
        sys.exit(f"{args.pairs} pairs take {2 * args.pairs + 500} open files in a proxy, the hard limit is {hard}: --pairs")
    pin(1)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    stop = multiprocessing.Event()
    member = multiprocessing.Process(target=member_process, args=(listener, stop), daemon=True)
    member.start()
    found, commands = {name: [] for name in names}, {}
    try:
        for number in range(args.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                behind = listener.getsockname()[1]
                subject = Direct(behind) if name == "direct" else Subject(name, args.pinion, behind)
                commands[name] = subject.command
                try:
                    found[name].append(measure(subject, args))
                finally:
                    subject.stop()
                print(f"round {number + 1} {name} done", file=sys.stderr)
    finally:
        stop.set()
        member.join(5)
    print(f"{os.cpu_count()} CPUs, {os.uname().sysname} {os.uname().release}; {args.pairs} pairs, {args.rounds} rounds; "
          f"median (least to most)\ncommand: bench/proxy.py {' '.join(sys.argv[1:])}\n")
    for name in names:
        print(f"- {name}: {version(name, args.pinion)}; `{commands[name]}`")
    print("\n| figure | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for figure in found[names[0]][0]:
        cells = [cell([one[figure] for one in found[name]]) for name in names]
        print(f"| {figure} | " + " | ".join(cells) + " |")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"arguments": vars(args), "versions": {n: version(n, args.pinion) for n in names}, "found": found},
                      file, indent=1)


if __name__ == "__main__":
    main()
