//! Which version of each API both sides speak.

use std::{collections::BTreeMap, time::Duration};

use riverrun_wire::{
    ApiKey, ErrorCode, Request,
    api::api_versions::{ApiVersionsRequest, ApiVersionsResponse},
};

use super::Connection;
use crate::error::{Error, Result, error_code};

/// What a broker serves, by API number.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    fn of(response: &ApiVersionsResponse) -> Self {
        Self(
            response
                .api_keys
                .iter()
                .map(|api| (api.api_key, (api.min_version, api.max_version)))
                .collect(),
        )
    }

    /// The highest version that both sides speak, at most `cap`.
    pub(super) fn choose(&self, api: ApiKey, cap: i16) -> Option<i16> {
        let (theirs_min, theirs_max) = *self.0.get(&api.number())?;
        let (ours_min, ours_max) = api.versions().into_inner();
        let highest = theirs_max.min(ours_max).min(cap);
        (highest >= theirs_min.max(ours_min)).then_some(highest)
    }
}

/// Asks for the broker's versions.
///
/// A broker that does not know our version of the question answers in version 0, with an error
/// and its own range for this API; one older than that closes the connection, and is too old.
pub(super) async fn ask(connection: &Connection, within: Duration) -> Result<Versions> {
    let (ours_min, ours_max) = ApiKey::ApiVersions.versions().into_inner();
    let request = ApiVersionsRequest {
        client_software_name: "riverrun".to_owned(),
        client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..ApiVersionsRequest::default()
    };
    let mut version = ours_max;
    loop {
        let asked = if version >= 3 {
            request.clone()
        } else {
            ApiVersionsRequest::default()
        };
        let response = connection.send(&asked, version, within)?.answer().await?;
        let code = error_code(response.error_code);
        let versions = Versions::of(&response);
        if code == ErrorCode::None {
            return Ok(versions);
        }
        let next = versions
            .choose(ApiKey::ApiVersions, version - 1)
            .unwrap_or(0);
        if code != ErrorCode::UnsupportedVersion || version <= ours_min || next >= version {
            return Err(Error::refused(
                format!("{} refused to say what it serves", connection.broker()),
                code,
                None,
            ));
        }
        version = next;
    }
}

/// What [`super::Awaited::answer`] must know about the one API whose answer may be in another
/// version than its question.
pub(super) fn answer_version<R: Request>(version: i16, frame: &[u8]) -> i16 {
    // The header of this answer is the correlation id alone in every version, then comes the code.
    let refused = frame
        .get(4..6)
        .is_some_and(|code| code == 35_i16.to_be_bytes());
    if R::API == ApiKey::ApiVersions && refused {
        0
    } else {
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        let produce = ApiKey::Produce;
        let (ours_min, ours_max) = produce.versions().into_inner();
        let theirs = |min, max| Versions([(produce.number(), (min, max))].into());
        assert_eq!(
            theirs(0, i16::MAX).choose(produce, i16::MAX),
            Some(ours_max)
        );
        assert_eq!(theirs(0, 7).choose(produce, i16::MAX), Some(7));
        assert_eq!(theirs(0, 9).choose(produce, 8), Some(8));
        assert_eq!(
            theirs(ours_max + 1, ours_max + 2).choose(produce, i16::MAX),
            None
        );
        assert_eq!(theirs(0, ours_min - 1).choose(produce, i16::MAX), None);
        assert_eq!(Versions::default().choose(produce, i16::MAX), None);
    }
}
