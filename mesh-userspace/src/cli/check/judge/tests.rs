//! What is made of machines that are not at hand.

use serde_json::json;

use super::*;
use crate::cli::check::machine::Mount;

fn capable() -> Machine {
    let mount = |point: &str, kind: &str| Mount {
        point: point.into(),
        kind: kind.into(),
    };
    Machine {
        release: "6.1.0-18-amd64".into(),
        btf: true,
        mounts: vec![
            mount("/", "ext4"),
            mount("/sys", "sysfs"),
            mount("/sys/fs/cgroup", "cgroup2"),
            mount("/sys/fs/bpf", "bpf"),
        ],
        knows_bpffs: true,
        capabilities: Some(u64::MAX),
        memlock: Some(Memlock::Bytes(65536)),
    }
}

#[test]
fn a_capable_machine_passes() {
    let machine = capable();
    for finding in [
        kernel(&machine),
        btf(&machine),
        cgroup(&machine),
        bpffs(&machine, Path::new("/sys/fs/bpf")),
        privileges(&machine),
        memlock(&machine),
    ] {
        assert_eq!(
            (finding.outcome, &finding.mend),
            (Outcome::Ok, &None),
            "{finding:?}"
        );
    }
}

#[test]
fn an_old_kernel_warns_and_the_self_test_decides() {
    let machine = Machine {
        release: "5.10.0-28-amd64".into(),
        ..capable()
    };
    assert_eq!(kernel(&machine).outcome, Outcome::Warn);
    assert_eq!(memlock(&machine).outcome, Outcome::Warn);
}

#[test]
fn missing_capabilities_are_named() {
    let machine = Machine {
        capabilities: Some(1 << 12),
        ..capable()
    };
    let finding = privileges(&machine);
    assert_eq!(finding.outcome, Outcome::Fail);
    assert_eq!(finding.detail, "missing: CAP_BPF, CAP_SYS_ADMIN");
    assert!(finding.mend.is_some());
    let test = self_test(&machine);
    assert_eq!(test.len(), 1);
    assert_eq!(test[0].detail, "not run: it needs CAP_BPF, CAP_SYS_ADMIN");
}

#[test]
fn sys_admin_includes_bpf() {
    assert!(missing_capabilities(1 << 12 | 1 << 21).is_empty());
    assert_eq!(missing_capabilities(1 << 12 | 1 << 39), ["CAP_SYS_ADMIN"]);
}

#[test]
fn without_cgroup_v2_the_mend_mounts_it() {
    let machine = Machine {
        mounts: Vec::new(),
        ..capable()
    };
    let finding = cgroup(&machine);
    assert_eq!(finding.outcome, Outcome::Fail);
    assert!(finding.mend.expect("a mend").contains("mount -t cgroup2"));
}

#[test]
fn bpffs_is_judged_by_the_mount_that_the_folder_is_on() {
    let machine = capable();
    assert_eq!(
        bpffs(&machine, Path::new("/sys/fs/bpf/below")).outcome,
        Outcome::Ok
    );
    // A name that only starts alike is another folder.
    assert_eq!(
        bpffs(&machine, Path::new("/sys/fs/bpf-2")).outcome,
        Outcome::Fail
    );
    let unmounted = bpffs(&machine, Path::new("/"));
    assert_eq!(unmounted.outcome, Outcome::Ok);
    assert!(
        unmounted.detail.contains("the agent mounts it"),
        "{unmounted:?}"
    );
    let without = Machine {
        knows_bpffs: false,
        ..machine
    };
    assert_eq!(bpffs(&without, Path::new("/")).outcome, Outcome::Fail);
}

#[test]
fn who_answers_at_the_admin_port_is_named() {
    let agent = admin_port("127.0.0.1:1", Ok(json!({"node": "n1", "version": "0.1.0"})));
    assert_eq!(agent.outcome, Outcome::Warn);
    assert!(agent.detail.contains("node n1, version 0.1.0"), "{agent:?}");
    let free = Err(ClientError::NoAgent {
        address: "127.0.0.1:1".into(),
        source: io::ErrorKind::ConnectionRefused.into(),
    });
    assert_eq!(admin_port("127.0.0.1:1", free).outcome, Outcome::Ok);
    let other = Err(ClientError::NotAnAgent {
        address: "127.0.0.1:1".into(),
        path: "/status".into(),
        what: "no HTTP/1.x status line".into(),
    });
    assert_eq!(admin_port("127.0.0.1:1", other).outcome, Outcome::Fail);
}

#[test]
fn a_failed_self_test_only_switches_acceleration_off() {
    let probe = |outcome| selftest::Probe {
        name: "order is kept".into(),
        outcome,
        detail: "seen".into(),
    };
    let passed = acceleration(&[probe(selftest::Outcome::Ok), probe(selftest::Outcome::Warn)]);
    assert_eq!(passed.outcome, Outcome::Ok);
    let failed = acceleration(&[probe(selftest::Outcome::Fail)]);
    assert_eq!(failed.outcome, Outcome::Warn);
    assert!(failed.detail.contains("order is kept"), "{failed:?}");
}
