//! Reading files offline.
