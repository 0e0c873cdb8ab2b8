//! The tenants, as the operator writes them and everybody else reads them.
