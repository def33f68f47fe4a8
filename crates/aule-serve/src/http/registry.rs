//! The pull part of the OCI distribution API (distribution-spec 1.1): every image of the site is a repository with the tag
//! `latest`, and has beside it the name and variant by which the store knows it.

use super::{Ends, Shared, blob};
use crate::{published::Published, server::Server};
use aule_store::{Reference, oci::media_type};
use aule_tree::Digest;
use axum::{
    Json,
    extract::{ConnectInfo, Path, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

const VERSION: (HeaderName, &str) = (HeaderName::from_static("docker-distribution-api-version"), "registry/2.0");

/// Says that this is a registry.
pub(super) async fn version() -> Response {
    ([VERSION], Json(json!({}))).into_response()
}

/// Builds by repository and tag.
type Repositories = BTreeMap<String, BTreeMap<String, Arc<Published>>>;

fn repositories(server: &Server) -> Repositories {
    let mut all = Repositories::new();
    let site = server.site();
    for (image, published) in server.images.all() {
        let reference = site.images.get(&image).and_then(|it| it.reference.value.parse::<Reference>().ok());
        if let Some((name, variant)) = reference.as_ref().and_then(|it| it.name.as_ref()?.split_once(':')) {
            all.entry(name.into()).or_default().insert(variant.into(), Arc::clone(&published));
        }
        all.entry(image).or_default().insert("latest".into(), published);
    }
    all
}

/// `/v2/<repository>/{manifests,blobs,tags,referrers}/<what>`. The name of a repository may have slashes.
pub(super) async fn get(
    State(shared): State<Shared>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    Path(path): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let all = repositories(&shared.server);
    if path == "_catalog" {
        return ([VERSION], Json(json!({ "repositories": all.keys().collect::<Vec<_>>() }))).into_response();
    }
    let mut parts = path.rsplitn(3, '/');
    let (Some(what), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such address");
    };
    let Some(tags) = all.get(name) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "the site has no image of this name");
    };
    match (kind, what) {
        ("tags", "list") => {
            ([VERSION], Json(json!({ "name": name, "tags": tags.keys().collect::<Vec<_>>() }))).into_response()
        }
        ("referrers", subject) => {
            let subject = subject.to_owned();
            let made = tokio::task::spawn_blocking(move || referrers(&shared.server, &subject)).await;
            made.unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "it failed"))
        }
        ("manifests", tag) => {
            let digest = tags.get(tag).map(|it| it.digest).or_else(|| tag.parse().ok());
            let found = digest.and_then(|it| Some((it, shared.server.images.blob(it).filter(|it| it.is_manifest)?)));
            let Some((digest, found)) = found else {
                return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "the image has no such manifest");
            };
            let mut answer = blob::respond(&shared, ends, digest, &found, &method, &headers).await;
            // A tag moves.
            if tag.parse::<Digest>().is_err() {
                answer.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache"));
            }
            answer
        }
        ("blobs", digest) => {
            let found = digest.parse().ok().and_then(|it| Some((it, shared.server.images.blob(it)?)));
            match found {
                Some((digest, found)) => blob::respond(&shared, ends, digest, &found, &method, &headers).await,
                None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "the image has no such blob"),
            }
        }
        _ => error(StatusCode::NOT_FOUND, "UNSUPPORTED", "only pulling is served"),
    }
}

fn referrers(server: &Server, subject: &str) -> Response {
    let Ok(subject) = subject.parse::<Digest>() else {
        return error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "that is no digest");
    };
    // Of what no image of the site leads to, nothing is said; the answer is empty (OCI distribution-spec 1.1, 3).
    let known = server.images.blob(subject).is_some();
    match if known { server.images.store().referrers(subject) } else { Ok(Vec::new()) } {
        Ok(manifests) => {
            let index = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests });
            ([(header::CONTENT_TYPE, media_type::INDEX)], index.to_string()).into_response()
        }
        Err(problem) => {
            server.warn(format!("referrers cannot be read: {problem}"));
            error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the store cannot be read")
        }
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, [VERSION], Json(json!({ "errors": [{ "code": code, "message": message }] }))).into_response()
}
