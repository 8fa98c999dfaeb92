//! What is the same for every kind: lists, watches, and looking one object up, with their descriptions.

/// The handler `list` of a kind: its objects, or every change of them.
macro_rules! list_route {
    ($type:ident, $params:ident, $path:tt, $tag:tt, $id:tt, $summary:tt) => {
        #[doc = $summary]
        ///
        /// A watch is as one of apps.
        #[utoipa::path(
            get, path = $path, tag = $tag, operation_id = $id, params($params),
            responses(
                (status = 200, description = "The list, or the stream of a watch", content(
                    (hivemind_model::List<$type> = "application/json"),
                    ($crate::lines::WatchLine<$type> = "application/x-ndjson"),
                    ($crate::lines::WatchLine<$type> = "text/event-stream"),
                )),
                (status = 400, description = "The query is not valid", body = hivemind_model::ApiError),
                (status = 409, description = "The revision is no longer kept (HM0305): list again",
                    body = hivemind_model::ApiError),
                (status = 503, description = "The store failed", body = hivemind_model::ApiError),
            )
        )]
        pub(crate) async fn list(
            axum::extract::State(serving): axum::extract::State<$crate::api::Serving>,
            caller: $crate::caller::Caller,
            headers: axum::http::HeaderMap,
            $crate::request::Params(params): $crate::request::Params<$params>,
        ) -> $crate::fault::Outcome<axum::response::Response> {
            super::list_or_watch(&serving, &caller, &headers, params.into(), |_: &$type| true).await
        }
    };
}

/// The handler `get` of a kind that is in namespaces, or of one that is in none.
macro_rules! get_route {
    ($type:ident in namespace, $path:tt, $tag:tt, $id:tt, $part:tt, $description:tt, $summary:tt) => {
        #[doc = $summary]
        #[utoipa::path(
            get, path = $path, tag = $tag, operation_id = $id,
            params(
                ("namespace" = String, Path, description = "The namespace"),
                ($part = String, Path, description = $description),
            ),
            responses(
                (status = 200, description = "The object", body = $type),
                (status = 404, description = "There is no such object", body = hivemind_model::ApiError),
                (status = 503, description = "The store failed", body = hivemind_model::ApiError),
            )
        )]
        pub(crate) async fn get(
            axum::extract::State(serving): axum::extract::State<$crate::api::Serving>,
            $crate::request::Place((namespace, word)): $crate::request::Place<(String, String)>,
        ) -> $crate::fault::Outcome<axum::Json<$type>> {
            Ok(axum::Json(serving.objects().find(&namespace, &word).await?))
        }
    };
    ($type:ident, $path:tt, $tag:tt, $id:tt, $part:tt, $description:tt, $summary:tt) => {
        #[doc = $summary]
        #[utoipa::path(
            get, path = $path, tag = $tag, operation_id = $id,
            params(($part = String, Path, description = $description)),
            responses(
                (status = 200, description = "The object", body = $type),
                (status = 404, description = "There is no such object", body = hivemind_model::ApiError),
                (status = 503, description = "The store failed", body = hivemind_model::ApiError),
            )
        )]
        pub(crate) async fn get(
            axum::extract::State(serving): axum::extract::State<$crate::api::Serving>,
            $crate::request::Place(word): $crate::request::Place<String>,
        ) -> $crate::fault::Outcome<axum::Json<$type>> {
            // It is in no namespace.
            Ok(axum::Json(serving.objects().find("", &word).await?))
        }
    };
}

pub(crate) use get_route;
pub(crate) use list_route;
