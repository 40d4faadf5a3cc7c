//! Policies put in use from outside: by hand, over gRPC, by copying.

use super::*;

fn component(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let target = test
        .ancestors()
        .nth(3)
        .expect("a test is in target/PROFILE/deps");
    let path = target.join("policies").join(name);
    assert!(
        path.exists(),
        "{} is not there: run make policies",
        path.display()
    );
    path
}

async fn routing(address: SocketAddr) -> oona::proto::PolicyStatus {
    let policies = admin(address)
        .await
        .list_policies(ListPoliciesRequest {})
        .await;
    let policies = policies.expect("it answers").into_inner().policies;
    policies
        .into_iter()
        .find(|policy| policy.kind == "routing")
        .expect("there is one")
}

async fn wait_for_generation(address: SocketAddr, generation: u64) -> oona::proto::PolicyStatus {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let policy = routing(address).await;
        if policy.generation >= generation {
            return policy;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {policy:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_copied_into_the_watched_directory_is_put_in_use() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().to_str().expect("a plain path");
    let host = Host::start(&[
        "--dev",
        "--policies",
        path,
        "--log-level",
        "info,oona=debug",
    ]);
    let before = routing(host.address).await;
    assert!(before.native, "{before:?}");

    // No policy: refused with its reason, and nothing changes.
    fs::write(directory.path().join("text.wasm"), "no component").expect("a file");
    host.wait_for_log("policy refused; the current one stays");
    assert_eq!(routing(host.address).await, before);

    fs::copy(component("routing.wasm"), directory.path().join("new.wasm")).expect("a copy");
    let after = wait_for_generation(host.address, before.generation + 1).await;
    assert!(!after.native && !after.digest.is_empty(), "{after:?}");
    let body = json!({ "type": "telemetry", "payload": "x" }).to_string();
    assert_eq!(
        post(host.address, "/v1/publish", JSON, body.as_bytes()).status,
        200
    );
}

#[tokio::test]
async fn a_policy_is_activated_over_grpc_or_refused_by_name() {
    let host = dev();
    let mut client = admin(host.address).await;
    let before = routing(host.address).await;
    let component = fs::read(component("routing.wasm")).expect("it can be read");
    let activate = |kind: &str, component: &[u8], config: Option<&str>| ActivatePolicyRequest {
        kind: kind.to_owned(),
        component: component.to_vec().into(),
        config_json: config.map(str::to_owned),
        ..Default::default()
    };
    let table = [
        (activate("", b"no component", None), ""),
        (
            activate("router", &component, None),
            "`router` is no kind of policy",
        ),
        (activate("freshness", &component, None), "freshness"),
        (
            activate("", &component, Some("{\"nonsense\": 1}")),
            "nonsense",
        ),
        (activate("", &component, Some("{")), ""),
    ];
    for (request, told) in table {
        let status = client
            .activate_policy(request)
            .await
            .expect_err("it is refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(told), "{status}");
        assert_eq!(routing(host.address).await, before);
    }
    let response = client
        .activate_policy(activate("routing", &component, None))
        .await;
    let response = response.expect("it is a policy").into_inner();
    let policy = response.policy.expect("it is told what is in use");
    assert_eq!(
        (&*policy.kind, policy.generation),
        ("routing", before.generation + 1)
    );
    assert_eq!(response.replaced.as_ref(), Some(&before));
    assert_eq!(routing(host.address).await, policy);
    let status = client
        .status(StatusRequest {})
        .await
        .expect("it answers")
        .into_inner();
    assert!(status.ready, "{status:?}");
}

#[tokio::test]
async fn unsigned_policies_are_refused_unless_allowed() {
    let host = Host::start(&["--set", "store.kind=memory"]);
    let component = fs::read(component("routing.wasm")).expect("it can be read");
    let request = ActivatePolicyRequest {
        component: component.into(),
        ..Default::default()
    };
    let status = admin(host.address).await.activate_policy(request).await;
    let status = status.expect_err("it is not signed");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("policies.allow_unsigned"),
        "{status}"
    );
}
