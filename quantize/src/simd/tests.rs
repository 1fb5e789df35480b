//! Every kernel against its plain form.
