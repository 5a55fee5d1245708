"""What contained code shows, made safe for the page and the terminal; pure, and the only such filter there is."""
