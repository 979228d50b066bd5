"""The operators' web pages: views over the same use cases as the API, templates, styles, a script."""
