//! A provider on localhost with invented leads and faults.
