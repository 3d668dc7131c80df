"""What shims are built from: modules changed once imported, functions put in place of others."""
