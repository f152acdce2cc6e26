"""Drives the published Python client through a gateway and prints what it found as one line of JSON.

    python decart.py GATEWAY API-KEY      (GATEWAY is http://127.0.0.1:PORT)
"""

import asyncio
import json
import logging
import sys
from types import SimpleNamespace

# As the interpreter puts this file's folder first, `import decart` would find this file.
sys.path.pop(0)

import aiohttp
from livekit import rtc

from decart import DecartClient, models
from decart.realtime.client import RealtimeClient
from decart.realtime.types import RealtimeConnectOptions

GATEWAY, API_KEY = sys.argv[1:]
MODEL, OTHER_MODEL = "lucy-2.5", "lucy-restyle-2"
PLATFORM = "https://platform.decart.ai"


class Room:
    """Stands in for the media library's room: media goes past the gateway and is no part of the test."""

    local_participant = SimpleNamespace()

    def on(self, _event):
        return lambda handler: handler

    async def connect(self, _url, _token):
        pass

    async def disconnect(self):
        pass


rtc.Room = Room
dials = []


async def count_dial(session, url, dial_out=aiohttp.ClientSession._ws_connect, **options):
    """Every dial of the client, and what came of it."""
    dial = {}
    dials.append(dial)
    try:
        socket = await dial_out(session, url, **options)
    except aiohttp.WSServerHandshakeError as error:
        dial["refused"] = error.status
        raise
    dial["open"] = True
    return socket


aiohttp.ClientSession._ws_connect = count_dial


async def mint(credential, **wish):
    async with DecartClient(api_key=credential, base_url=GATEWAY) as client:
        try:
            token = await client.tokens.create(**wish)
        except Exception as error:
            return {"refused": getattr(error, "data", {}).get("status"), "message": str(error)}
        return {
            "apiKey": token.api_key,
            "token": token.token,
            "expiresAt": token.expires_at,
            "permissions": token.permissions,
            "constraints": token.constraints,
        }


async def verify(token, jwks=f"{GATEWAY}/api/auth/jwks", audience=PLATFORM):
    async with DecartClient(api_key=API_KEY, base_url=GATEWAY) as client:
        try:
            claims = await client.tokens.verify(token, jwks_url=jwks, issuer=PLATFORM, audience=audience)
        except Exception as error:
            return {"failed": str(error)}
        return {"user": claims.user_id, "models": claims.allowed_models, "origins": claims.allowed_origins}


async def connect(credential, model, patience=20.0):
    """A refused client would dial five times in 15 seconds; `patience` ends that earlier."""
    dials.clear()
    options = RealtimeConnectOptions(model=models.realtime(model), on_remote_stream=lambda *_: None)
    dialling = RealtimeClient.connect(
        base_url=GATEWAY.replace("http", "ws", 1), api_key=credential, local_track=None, options=options
    )
    try:
        session = await asyncio.wait_for(dialling, patience)
    except Exception as error:
        return {"dials": list(dials), "failed": str(error) or type(error).__name__}
    await session.set_prompt("a field of sunflowers")
    found = {"dials": list(dials), "state": session.get_connection_state(), "session": session.session_id}
    await session.disconnect()
    return found


async def main():
    wish = {
        "expires_in": 120,
        "allowed_models": [MODEL],
        "constraints": {"realtime": {"maxSessionDuration": 60}},
    }
    minted = await mint(API_KEY, **wish)
    token, jwt = minted.get("apiKey", ""), minted.get("token", "")
    found = {
        "mint": minted,
        "plain": await mint(API_KEY),
        "stranger": await mint("dct_nobody-has-this-key-0000"),
        "fromToken": await mint(token),
        "verified": await verify(jwt),
        "otherAudience": await verify(jwt, audience="https://elsewhere.example"),
        "forged": await verify(jwt[:-20] + ("A" if jwt[-20:-19] != "A" else "B") + jwt[-19:]),
        "opaque": await connect(token, MODEL),
        "jwt": await connect(jwt, MODEL),
        "wrongModel": await connect(token, OTHER_MODEL, patience=2.5),
        "noToken": await connect("ek_nothing", MODEL),
    }
    print(json.dumps(found))


logging.disable(logging.CRITICAL)
asyncio.run(asyncio.wait_for(main(), 60))
