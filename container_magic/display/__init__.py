"""Events and reports as notebook streams, text, HTML and pictures; what comes out of a container is made safe here."""
