//! Requests about who may ask: tokens, codes and sessions; and what the daemon measures.

use hivemind_model::{ApiError, LoginCode, Metadata, NewToken, Resource, Session, Token, TokenSpec};
use hyper::Method;

use crate::{
    client::Client,
    connection::{empty, json},
    path::ApiPath,
};

impl Client {
    /// Makes a token. Its secret is shown this once. Tokens are listed by [`Client::list`].
    ///
    /// # Errors
    /// Every fault at once; `TokenExists`, `Forbidden`.
    pub async fn create_token(&self, name: &str, spec: TokenSpec) -> Result<NewToken, ApiError> {
        let token = Token { metadata: Metadata::new(hivemind_model::DEFAULT_NAMESPACE, name), spec };
        self.change(Method::POST, &ApiPath::of(Token::PLURAL), json(&token)?).await
    }

    /// Revokes a token: whoever is in by it is out at once.
    ///
    /// # Errors
    /// `TokenNotFound`, `Forbidden`.
    pub async fn revoke_token(&self, token: &str) -> Result<(), ApiError> {
        self.delete(&ApiPath::of(Token::PLURAL).part(token)).await
    }

    /// Makes a code that opens the dashboard once.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn login_code(&self) -> Result<LoginCode, ApiError> {
        self.change(Method::POST, &ApiPath::of("login-codes"), empty()).await
    }

    /// Who this client is to the daemon, and what it may do.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub async fn session(&self) -> Result<Session, ApiError> {
        self.get(&ApiPath::of("session")).await
    }

    /// What the daemon measures, in Prometheus' text format.
    ///
    /// # Errors
    /// Those of all requests.
    pub async fn metrics(&self) -> Result<String, ApiError> {
        self.text("/metrics").await
    }
}
