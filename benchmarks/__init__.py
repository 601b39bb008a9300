"""What the library is measured by; no part of the package."""
