//! A token for the length of a verb: the root token while it is on record, afterwards a login as platflow's own
//! service account. No login's token is ever stored; it is revoked when the verb is done with it.

use super::Vaults;
use super::place::VaultPlace;
use super::reach::kube_failure;
use super::server::{Reply, VaultServer};
use super::survey::Survey;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use platflow_engine::failure::{ErrorClass, Residue, StepError};
use platflow_engine::name::EnvironmentUid;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use std::time::Duration;

/// The record of the root token, until it is revoked.
pub(super) const ROOT_TOKEN: &str = "vault/root-token";
/// How long a service account's token lives; the API server's minimum.
const TOKEN_SECONDS: i64 = 600;
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Who logs in, where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAs {
    /// Service account in Vault's namespace.
    pub service_account: String,
    /// Role of the auth method.
    pub role: String,
    /// Mount of the auth method.
    pub mount: String,
}

impl Default for LoginAs {
    fn default() -> Self {
        Self { service_account: "platflow".into(), role: "platflow".into(), mount: "kubernetes".into() }
    }
}

/// An authorised server.
#[derive(Debug)]
pub struct Session {
    /// The active server, with a token.
    pub server: VaultServer,
    /// True when it is the root token's.
    pub root: bool,
}

impl Session {
    /// Ends a login's token; the root token is left alone. Best effort: it expires within minutes by itself.
    pub async fn close(self) {
        if !self.root
            && let Err(error) = self.server.put("auth/token/revoke-self", &json!({}), LOGIN_TIMEOUT).await
        {
            tracing::debug!(%error, "a short-lived Vault token was not revoked; it expires by itself");
        }
    }
}

impl Vaults {
    /// The active server, if one serves.
    pub(super) async fn active(&self, place: &VaultPlace) -> Result<Option<VaultServer>, StepError> {
        for pod in &place.pods {
            let server = VaultServer::open(&self.reach, place, pod).await?;
            if let Ok(Reply { status: 200, .. }) = server.get("sys/health").await {
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    /// A session with whatever authority there is: root first, then platflow's own login. None when neither works.
    ///
    /// # Errors
    /// When the servers or the API server could not be asked.
    pub async fn session(
        &self,
        place: &VaultPlace,
        environment: &EnvironmentUid,
        login: &LoginAs,
    ) -> Result<Option<Session>, StepError> {
        let Some(server) = self.active(place).await? else { return Ok(None) };
        if let Some(session) = self.root_session(place, environment).await? {
            return Ok(Some(session));
        }
        match self.login(place, server, login).await {
            Ok(session) => Ok(Some(session)),
            // No such account, role or mount yet, or not allowed: that is an answer.
            Err(error) if matches!(error.class, ErrorClass::Permanent | ErrorClass::Permission) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A session with the root token, if one is on record and still valid.
    pub(super) async fn root_session(
        &self,
        place: &VaultPlace,
        environment: &EnvironmentUid,
    ) -> Result<Option<Session>, StepError> {
        let found = self.keystore.get(environment, ROOT_TOKEN, None).await;
        let Some(root) = found.map_err(|error| error.into_failure(Residue::None))? else { return Ok(None) };
        // Without a server to ask, the token is neither valid nor not: taken for dead, it would be forgotten unrevoked.
        let Some(server) = self.active(place).await? else {
            return Err(StepError::transient(
                "no Vault server leads, so nobody can say whether the root token is valid",
            )
            .leaving(Residue::None));
        };
        let server = server.with_token(root);
        let reply = server.get("auth/token/lookup-self").await?;
        match reply.status {
            403 => Ok(None),
            _ => {
                reply.success("looking up the root token")?;
                Ok(Some(Session { server, root: true }))
            }
        }
    }

    /// Logs in as a service account, with a token that the API server mints for it now.
    ///
    /// # Errors
    /// Permanent or Permission when the account, the role or the binding is not there.
    pub async fn login(&self, place: &VaultPlace, server: VaultServer, login: &LoginAs) -> Result<Session, StepError> {
        let jwt = self.service_account_token(place, &login.service_account).await?;
        let body = json!({ "role": login.role, "jwt": jwt.expose_secret() });
        let path = format!("auth/{}/login", login.mount);
        let reply = server.put(&path, &body, LOGIN_TIMEOUT).await?.success("logging in to Vault")?;
        let token = reply.text("/auth/client_token").map(|token| SecretString::from(token.to_owned()));
        let token = token.ok_or_else(|| StepError::transient("a login to Vault gave no token"))?;
        Ok(Session { server: server.with_token(token), root: false })
    }

    async fn service_account_token(&self, place: &VaultPlace, account: &str) -> Result<SecretString, StepError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.reach.client(&place.cluster)?, &place.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| kube_failure("requesting a token", account, &error))?;
        answer
            .status
            .and_then(|status| status.token)
            .map(SecretString::from)
            .ok_or_else(|| StepError::transient(format!("the API server gave no token for {account}")))
    }

    /// How many servers vote.
    pub(super) async fn voters(&self, session: &Session) -> Result<usize, StepError> {
        let reply = session.server.get("sys/storage/raft/configuration").await?.success("reading Raft's members")?;
        let servers = reply.body.pointer("/data/config/servers").and_then(serde_json::Value::as_array);
        let votes =
            |server: &&serde_json::Value| server.get("voter").and_then(serde_json::Value::as_bool) == Some(true);
        Ok(servers.map(|servers| servers.iter().filter(votes).count()).unwrap_or_default())
    }
}

/// The pod that leads, as the unsealed servers see it.
pub(super) async fn leader(vaults: &Vaults, place: &VaultPlace, survey: &Survey) -> Result<Option<String>, StepError> {
    for status in survey.statuses().filter(|status| status.initialized && !status.sealed) {
        let server = VaultServer::open(&vaults.reach, place, &status.pod).await?;
        if let Ok(Reply { status: 200, .. }) = server.get("sys/health").await {
            return Ok(Some(status.pod.clone()));
        }
    }
    Ok(None)
}
