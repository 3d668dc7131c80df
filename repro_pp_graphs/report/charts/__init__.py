"""The pictures of report.html as data; web/src draws them."""
