//! Tokens: what lets a request in that does not come over the Unix socket.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::metadata::Metadata;

/// A token, without its secret: only a hash of that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its name.
    pub metadata: Metadata,
    /// What it allows.
    pub spec: TokenSpec,
}

/// What a token allows, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSpec {
    /// What its bearer may do.
    pub role: TokenRole,
    /// When it ceases to be valid; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// The SHA-256 of the secret in hex; never sent by the API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(ignore)]
    pub hash: String,
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// Look at everything but tokens; change nothing, start nothing.
    ReadOnly,
    /// Everything.
    Admin,
}

/// A token that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The token.
    pub token: Token,
    /// Its secret, to be sent as `Authorization: Bearer …`. Shown this once.
    pub secret: String,
}

/// A code that opens the dashboard once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginCode {
    /// The code.
    pub code: String,
    /// Where the dashboard is, the code in its fragment.
    pub url: String,
    /// When the code ceases to be valid.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// The body of a request to log in, by a code or by a token's secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// A one-time code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A token's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// What it may do.
    pub role: TokenRole,
    /// The token's name; `socket` over the Unix socket, `ui` for a one-time code.
    pub name: String,
    /// When the session ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
}
