//! The part of the gallery in which the runbook, its parameters or the settings are wrong.

use platflow_tests::misconfigured::{Case, Wrong, case, pools};

fn set(text: &str, check: &'static str, severity: &'static str) -> Case {
    case(Wrong::Parameter(text.to_owned()), check, severity)
}

fn dev(from: &'static str, to: &'static str, check: &'static str, severity: &'static str) -> Case {
    case(Wrong::Runbook("deploy-aws-dev", from, to), check, severity)
}

fn addresses() -> Vec<Case> {
    vec![
        set("vpc_cidr=10.0.0.0", "network.malformed", "blocker"),
        set("vpc_cidr=10.0.1.0/16", "network.host-bits", "blocker"),
        set("vpc_cidr=10.0.0.0/8", "network.vpc-size", "blocker"),
        set("vpc_cidr=10.1.0.0/16", "network.subnet-outside", "blocker"),
        set("private_cidrs=[10.0.64.0/18, 10.0.64.0/19, 10.0.192.0/18]", "network.subnets-overlap", "blocker"),
        set("public_cidrs=[10.0.0.0/29, 10.0.16.0/20, 10.0.32.0/20]", "network.subnet-size", "blocker"),
        set("private_cidrs=[10.0.64.0/28, 10.0.128.0/28, 10.0.192.0/28]", "network.node-addresses", "blocker"),
        set("private_cidrs=[10.0.64.0/28, 10.0.128.0/18, 10.0.192.0/18]", "network.cluster-addresses", "warning"),
        set("public_cidrs=[10.0.0.0/20, 10.0.16.0/20]", "network.subnet-per-zone", "blocker"),
        set("service_cidr=10.0.0.0/16", "network.service-range", "blocker"),
        set("service_cidr=8.8.0.0/16", "network.service-range", "blocker"),
        case(
            Wrong::Fixture("small-cluster.yaml", "cidr: 10.0.0.0/16", "cidr: 11.0.0.0/16"),
            "network.public-range",
            "warning",
        ),
        case(
            Wrong::Fixture("small-cluster.yaml", "cidr: 10.0.0.0/16", "cidr: 172.17.0.0/16"),
            "network.docker-bridge",
            "warning",
        ),
        set("public_access_cidrs=[0.0.0.0/0]", "endpoint.open", "warning"),
        case(
            Wrong::Fixture(
                "small-cluster.yaml",
                "public_access: true\n      private_access: true",
                "public_access: false\n      private_access: false",
            ),
            "endpoint.none",
            "blocker",
        ),
    ]
}

fn machines() -> Vec<Case> {
    let pool = |from, to, check, severity| case(pools(from, to), check, severity);
    vec![
        pool("min: 3, desired: 3, max: 6", "min: 5, desired: 3, max: 6", "capacity.counts", "blocker"),
        pool("min: 3, desired: 3, max: 6", "min: 0, desired: 0, max: 6", "capacity.empty", "warning"),
        Case {
            wrong: vec![Wrong::Parameter(
                platflow_tests::misconfigured::POOLS
                    .replace("min: 3, desired: 3, max: 6", "min: 1, desired: 1, max: 6")
                    .replace("min: 3, desired: 3, max: 10", "min: 1, desired: 1, max: 10"),
            )],
            check: "capacity.high-availability",
            severity: "blocker",
        },
        Case {
            wrong: vec![Wrong::Parameter(
                platflow_tests::misconfigured::POOLS
                    .replace("taints: []", "taints: [{key: a, value: b, effect: NO_EXECUTE}]"),
            )],
            check: "capacity.all-tainted",
            severity: "blocker",
        },
        pool("effect: NO_SCHEDULE", "effect: NoSchedule", "capacity.taints", "blocker"),
        pool("{platform/pool: system}", "{node-role.kubernetes.io/system: yes}", "capacity.labels", "blocker"),
        pool("disk_gib: 100", "disk_gib: 8", "capacity.disk", "blocker"),
        pool("min: 3, desired: 3, max: 6", "min: 2, desired: 2, max: 6", "capacity.spread", "note"),
        set(
            "namespaces={platform-system: {pod_security: baseline, requests_cpu: \"16\", requests_memory: 32Gi, limits_cpu: \"8\", limits_memory: 64Gi}, \
             platform-apps: {pod_security: restricted, requests_cpu: \"400\", requests_memory: 48Gi, limits_cpu: \"480\", limits_memory: 96Gi}, \
             platform-data: {pod_security: baseline, requests_cpu: \"2\", requests_memory: 4Gi, limits_cpu: \"4\", limits_memory: 8Gi}}",
            "capacity.limits",
            "warning",
        ),
        set(
            "namespaces={platform-system: {pod_security: baseline, requests_cpu: \"16\", requests_memory: 32Gi, limits_cpu: \"32\", limits_memory: 64Gi}, \
             platform-apps: {pod_security: restricted, requests_cpu: \"400\", requests_memory: 48Gi, limits_cpu: \"480\", limits_memory: 96Gi}, \
             platform-data: {pod_security: baseline, requests_cpu: \"2\", requests_memory: 4Gi, limits_cpu: \"4\", limits_memory: 8Gi}}",
            "capacity.requests",
            "warning",
        ),
        pool("instance_types: [r6g.large]", "instance_types: [r6i.large]", "instance.architecture", "blocker"),
        pool(
            "instance_types: [r6g.large]",
            "instance_types: [r6g.large, r6i.large]",
            "instance.mixed-architectures",
            "blocker",
        ),
        pool("instance_types: [t3.large]", "instance_types: [t3.large, t3.xlarge]", "instance.sizes", "warning"),
        pool(
            "[t3.xlarge, t3a.xlarge, m5.xlarge, m5a.xlarge, m6i.xlarge]",
            "[t3.xlarge]",
            "instance.spot-diversity",
            "warning",
        ),
        pool("instance_types: [t3.large]", "instance_types: [z9.huge]", "instance.offered", "blocker"),
        set("kubernetes_version=1.28", "version.supported", "blocker"),
    ]
}

fn inside() -> Vec<Case> {
    vec![
        Case {
            wrong: vec![
                Wrong::Runbook("deploy-aws-dev", "      default: true\n", "      default: false\n"),
                Wrong::Runbook(
                    "deploy-aws-dev",
                    "storage_class: ${steps.storage_class.outputs.name}",
                    "storage_class: null",
                ),
            ],
            check: "storage.default-class",
            severity: "blocker",
        },
        dev("encrypted: \"true\"", "encrypted: \"false\"", "storage.encryption", "warning"),
        dev("WaitForFirstConsumer", "Immediate", "storage.binding", "warning"),
        dev("name: aws-ebs-csi-driver\n", "name: metrics-server\n", "storage.driver", "blocker"),
        dev("      name: coredns\n", "      name: metrics-server\n", "addon.dns", "blocker"),
        dev(
            "      version: ${steps.lookups.outputs.addon_versions.coredns}",
            "      version: ${steps.lookups.outputs.addon_versions.coredns}\n      configuration: {replicas: 2}",
            "addon.configuration",
            "blocker",
        ),
        dev(
            "      version: ${steps.lookups.outputs.addon_versions.coredns}",
            "      version: v0.1",
            "addon.version",
            "blocker",
        ),
        set("cluster_name=a-name-that-is-long-enough-for-clusters-and-not-for-its-roles", "name.length", "blocker"),
        set(
            "namespaces={platform-system: {pod_security: baseline, requests_cpu: \"1\", requests_memory: 1Gi, limits_cpu: \"1\", limits_memory: 1Gi}, \
             platform-apps: {pod_security: baseline, requests_cpu: \"1\", requests_memory: 1Gi, limits_cpu: \"1\", limits_memory: 1Gi}, \
             platform-data: {pod_security: baseline, requests_cpu: \"1\", requests_memory: 1Gi, limits_cpu: \"1\", limits_memory: 1Gi}, \
             kube-extra: {pod_security: baseline, requests_cpu: \"1\", requests_memory: 1Gi, limits_cpu: \"1\", limits_memory: 1Gi}}",
            "name.reserved",
            "blocker",
        ),
        case(
            Wrong::Fixture("small-cluster.yaml", "name: small-cluster", "name: small cluster"),
            "name.letters",
            "blocker",
        ),
        set("argocd_source={url: \"https://example.invalid/install.yaml\"}", "manifest.pinned", "blocker"),
        set(
            "argocd_source={url: \"http://example.invalid/install.yaml\", sha256: \"00\"}",
            "manifest.address",
            "blocker",
        ),
        set("argocd_source={file: /nowhere/install.yaml}", "manifest.file", "blocker"),
        set(
            "argocd_source={file: /etc/hostname, sha256: \"0000000000000000000000000000000000000000000000000000000000000000\"}",
            "manifest.digest",
            "blocker",
        ),
        set("argocd_source={file: /etc/hostname, sha256: \"00\"}", "manifest.digest-form", "blocker"),
        set("argocd_source={file: /etc/hostname, embedded: true}", "manifest.source", "blocker"),
        Case {
            wrong: vec![
                Wrong::Parameter("gitops_repo=https://example.invalid/repo.git".to_owned()),
                Wrong::Parameter("gitops_credentials={username: me, password_file: /nowhere/password}".to_owned()),
            ],
            check: "manifest.git-credentials",
            severity: "blocker",
        },
    ]
}

fn rules() -> Vec<Case> {
    let production = |from, to, check, severity| Case {
        wrong: vec![
            Wrong::Runbook("deploy-aws-production", from, to),
            Wrong::Parameter("public_access_cidrs=[127.0.0.0/8]".to_owned()),
        ],
        check,
        severity,
    };
    vec![
        set("log_retention_days=29", "policy.log-retention", "blocker"),
        production("    needs: [approval]\n", "    needs: [lookups]\n", "policy.approval", "blocker"),
        production("deploy-aws-production", "deploy-aws-production", "policy.approvers", "warning"),
        production(
            "deletion_protection: {type: boolean, default: true}",
            "deletion_protection: {type: boolean, default: false}",
            "policy.deletion-protection",
            "warning",
        ),
        production("default: [\"0\", \"1\", \"2\"]", "default: [\"0\"]", "policy.nat-per-zone", "warning"),
        production("capacity: ON_DEMAND", "capacity: SPOT", "policy.spot-in-production", "warning"),
        production("on_failure: park", "on_failure: rollback", "policy.on-failure", "warning"),
        production("deploy-aws-production", "deploy-aws-production", "policy.admins", "warning"),
        production("deploy-aws-production", "deploy-aws-production", "identity.long-lived-keys", "warning"),
        production("deploy-aws-production", "deploy-aws-production", "cost.no-ceiling", "note"),
        case(Wrong::Variable("PLATFLOW_COST_CEILING", "100"), "cost.ceiling", "blocker"),
        case(Wrong::Variable("PLATFLOW_COST_CEILING", "800"), "cost.ceiling-at-maximum", "warning"),
        case(Wrong::Variable("PLATFLOW_RECIPIENTS", "me@example.com"), "key.recipients", "blocker"),
        case(Wrong::Variable("PLATFLOW_SECOND_KEY_STORE", "/dev/null/keys"), "key.second-store", "blocker"),
        case(Wrong::Variable("PLATFLOW_IDENTITY", "/etc/hostname"), "key.identity-mode", "blocker"),
        set("vault_second_store=/dev/null/keys", "key.second-store", "blocker"),
    ]
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [addresses(), machines(), inside(), rules()].into_iter().flatten().collect()
}
