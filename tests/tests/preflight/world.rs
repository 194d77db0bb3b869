//! The part of the gallery in which the account is wrong.

use platflow_tests::misconfigured::{Case, Wrong, case};

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "what ends soon does so on any day on which this is run")]
fn in_a_month() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_secs() + 30 * 86_400
}

fn denied(actions: &'static str, check: &'static str, severity: &'static str) -> Case {
    case(Wrong::Account(actions.to_owned()), check, severity)
}

fn permissions() -> Vec<Case> {
    vec![
        denied(r#"{"denied": ["ec2:CreateVpc"]}"#, "permission.network", "blocker"),
        denied(r#"{"denied": ["ec2:ModifySubnetAttribute"]}"#, "permission.network", "blocker"),
        denied(r#"{"denied": ["ec2:AuthorizeSecurityGroupIngress"]}"#, "permission.security-groups", "blocker"),
        denied(r#"{"denied": ["ec2:CreateLaunchTemplate"]}"#, "permission.launch-templates", "blocker"),
        denied(r#"{"denied": ["ec2:RunInstances"]}"#, "permission.launch-templates", "blocker"),
        denied(r#"{"denied": ["eks:CreateCluster"]}"#, "permission.clusters", "blocker"),
        denied(r#"{"denied": ["eks:CreateNodegroup"]}"#, "permission.node-groups", "blocker"),
        denied(r#"{"denied": ["eks:CreateAddon"]}"#, "permission.addons", "blocker"),
        denied(r#"{"denied": ["eks:CreateAccessEntry"]}"#, "permission.access-entries", "blocker"),
        denied(r#"{"denied": ["iam:CreateRole"]}"#, "permission.roles", "blocker"),
        denied(r#"{"denied": ["iam:PassRole"]}"#, "permission.pass-role", "blocker"),
        denied(r#"{"denied": ["iam:CreateOpenIDConnectProvider"]}"#, "permission.oidc-providers", "blocker"),
        denied(r#"{"denied": ["kms:CreateKey"]}"#, "permission.keys", "blocker"),
        denied(r#"{"denied": ["logs:CreateLogGroup"]}"#, "permission.logs", "blocker"),
        denied(r#"{"denied": ["iam:CreateServiceLinkedRole"]}"#, "permission.service-linked-roles", "blocker"),
        denied(r#"{"denied": ["ec2:DeleteVpc", "eks:DeleteCluster"]}"#, "permission.taking-back", "warning"),
        denied(r#"{"denied": ["iam:SimulatePrincipalPolicy"]}"#, "permission.simulation", "note"),
        denied(r#"{"denied": ["autoscaling:Describe*"]}"#, "permission.looking", "warning"),
        denied(r#"{"denied": ["servicequotas:Get*"]}"#, "quota.readable", "warning"),
    ]
}

fn quotas() -> Vec<Case> {
    let quota = |fields: &str, check| case(Wrong::Account(fields.to_owned()), check, "blocker");
    vec![
        quota(r#"{"quotas": {"L-F678F1CE": 0}}"#, "quota.vpcs"),
        quota(r#"{"quotas": {"L-A4707A72": 0}}"#, "quota.internet-gateways"),
        quota(r#"{"quotas": {"L-0263D0A3": 0}}"#, "quota.elastic-ips"),
        quota(r#"{"quotas": {"L-FE5A380F": 0}}"#, "quota.nat-gateways"),
        quota(r#"{"quotas": {"L-1216C47A": 8}}"#, "quota.on-demand-vcpus"),
        quota(r#"{"quotas": {"L-34B43A08": 8}}"#, "quota.spot-vcpus"),
        case(Wrong::Account(r#"{"quotas": {"L-1216C47A": 15}}"#.to_owned()), "quota.vcpus-at-maximum", "warning"),
        quota(r#"{"quotas": {"L-1194D53C": 0}}"#, "quota.clusters"),
        quota(r#"{"quotas": {"L-6D54EA21": 2}}"#, "quota.node-groups"),
        quota(r#"{"quotas": {"L-BD136A63": 5}}"#, "quota.nodes-per-group"),
        quota(r#"{"quotas": {"L-407747CB": 5}}"#, "quota.subnets-per-vpc"),
        quota(r#"{"quotas": {"L-589F43AA": 3}}"#, "quota.route-tables-per-vpc"),
        quota(r#"{"quotas": {"L-E79EC296": 0}}"#, "quota.security-groups"),
        quota(r#"{"quotas": {"L-0EA8095F": 2}}"#, "quota.security-group-rules"),
        quota(r#"{"quotas": {"L-7A658B76": 1}}"#, "quota.gp3-storage"),
        quota(r#"{"other_roles": 998}"#, "quota.roles"),
    ]
}

fn offers() -> Vec<Case> {
    let account = |fields: &str, check, severity| case(Wrong::Account(fields.to_owned()), check, severity);
    vec![
        account(
            r#"{"zones": {"use1-az1": "unavailable", "use1-az2": "unavailable", "use1-az4": "unavailable"}}"#,
            "zone.count",
            "blocker",
        ),
        account(r#"{"zones": {"use1-az5": "impaired"}}"#, "zone.state", "warning"),
        account(r#"{"disabled_regions": ["us-east-1"]}"#, "zone.region", "blocker"),
        account(r#"{"offered": {"r6g.large": ["use1-az1"]}}"#, "zone.offerings", "warning"),
        account(r#"{"offered": {"r6g.large": []}}"#, "instance.offered", "blocker"),
        account(r#"{"previous": ["t3.large"]}"#, "instance.previous-generation", "warning"),
        account(r#"{"unsold": ["m5.xlarge"]}"#, "instance.spot-sold", "blocker"),
        account(r#"{"unpriced": ["m5.xlarge"]}"#, "instance.spot-market", "warning"),
        account(r#"{"standard_until": {"1.36": 1, "1.35": 1, "1.34": 1}}"#, "version.supported", "blocker"),
        account(&format!(r#"{{"standard_until": {{"1.36": {}}}}}"#, in_a_month()), "version.support-ends", "warning"),
        account(r#"{"standard_until": {"1.36": 1900000000}}"#, "version.table", "note"),
        account(r#"{"no_addons": ["coredns"]}"#, "addon.offered", "blocker"),
        account(r#"{"addon_architectures": {"coredns": ["amd64"]}}"#, "addon.architecture", "blocker"),
    ]
}

fn surroundings() -> Vec<Case> {
    let foreign = |kind, name, check, severity| case(Wrong::Foreign(kind, name), check, severity);
    let account = |fields: &str, check, severity| case(Wrong::Account(fields.to_owned()), check, severity);
    vec![
        foreign("iam_role", "platflow-aws-dev-cluster", "name.role", "blocker"),
        foreign("log_group", "/aws/eks/platflow-aws-dev/cluster", "name.log-group", "blocker"),
        foreign("kms_alias", "alias/platflow/platflow-aws-dev", "name.key-alias", "blocker"),
        foreign("eks_cluster", "platflow-aws-dev", "name.cluster", "blocker"),
        foreign("log_group", "/platflow/environments/aws-dev", "lock.account", "blocker"),
        foreign("vpc", "platflow-aws-dev", "name.network", "warning"),
        foreign("vpc", "of-team-blue", "network.vpc-overlap", "warning"),
        account(r#"{"caller": "arn:aws:iam::123456789012:root"}"#, "identity.root-user", "warning"),
        account(r#"{"caller": "arn:aws:iam::123456789012:root"}"#, "identity.principal", "blocker"),
        account(r#"{"caller": "arn:aws:sts::123456789012:assumed-role/gone/me"}"#, "identity.principal", "blocker"),
        account(r#"{"ahead_seconds": 900}"#, "identity.clock", "blocker"),
        account(r#"{"ahead_seconds": -120}"#, "identity.clock", "warning"),
        Case {
            wrong: vec![
                Wrong::Account(r#"{"caller_address": "203.0.113.9"}"#.to_owned()),
                Wrong::Fixture("small-cluster.yaml", "public_access: true", "public_access: false"),
            ],
            check: "endpoint.private",
            severity: "blocker",
        },
        Case {
            wrong: vec![
                Wrong::Account(r#"{"caller_address": "203.0.113.9"}"#.to_owned()),
                Wrong::Parameter("public_access_cidrs=[198.51.100.0/24]".to_owned()),
            ],
            check: "endpoint.caller-outside",
            severity: "blocker",
        },
        account(r#"{"caller_address": "nowhere"}"#, "endpoint.own-address", "warning"),
    ]
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    [permissions(), quotas(), offers(), surroundings()].into_iter().flatten().collect()
}
