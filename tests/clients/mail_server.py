"""mail_server.py CERTIFICATE KEY: an SMTP server with STARTTLS, which prints each mail that it took as a line of JSON."""
import asyncio, json, ssl, sys
from aiosmtpd.smtp import SMTP


class Keeper:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": envelope.content.decode(),
            "tls": session.ssl is not None,
        }
        print(json.dumps(mail), flush=True)
        return "250 kept"


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Keeper(), tls_context=context, hostname="store"), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(json.dumps({"listening": {"app": f"{host}:{port}"}}), flush=True)
    await server.serve_forever()


asyncio.run(main())
