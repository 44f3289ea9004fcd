"""What brings the service to machines: the Bento's folder, images, compose, Helm chart, rules and dashboards."""
