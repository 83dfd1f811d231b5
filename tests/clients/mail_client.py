"""mail_client.py HOST:PORT TLS: sends one mail, after STARTTLS if TLS is `tls`. Prints what the server said as JSON."""
import json, smtplib, ssl, sys, time

host, port = sys.argv[1].rsplit(":", 1)
smtp = smtplib.SMTP(timeout=60)
smtp._host = "store"  # what STARTTLS asks for, which connect() alone does not set
began = time.monotonic()
banner = smtp.connect(host, int(port))
waited = time.monotonic() - began
offers = smtp.ehlo("web") and smtp.has_extn("starttls")
if sys.argv[2] == "tls":
    smtp.starttls(context=ssl._create_unverified_context())
    smtp.ehlo("web")
refused = smtp.sendmail("a@shop", ["b@shop", "c@shop"], "Subject: order\r\n\r\n.leading dot\r\n" + "line\r\n" * 10000)
end = smtp.quit()
print(json.dumps({"banner": banner[0], "waited": waited, "starttls": offers, "refused": refused, "end": end[0]}))
