// Drives the published JavaScript client through a gateway and prints what it found as one line of JSON.
//   node decart.mjs GATEWAY API-KEY CLIENTS
// GATEWAY is http://127.0.0.1:PORT, CLIENTS the folder whose node_modules hold the client. Needs Node 18.19 or later.
import { register } from "node:module";

const [gateway, apiKey, clients] = process.argv.slice(2);
const MODEL = "lucy-2.5";
const OTHER_MODEL = "lucy-restyle-2";
const ORIGIN = "https://app.example";

register("./hooks.mjs", import.meta.url, { data: clients });
const { createDecartClient, models } = await import("@decartai/sdk");
const { default: NodeWebSocket } = await import("ws");

// A camera-less session needs no more of a browser than this.
globalThis.MediaStream = class {
  getTracks = () => [];
  getVideoTracks = () => [];
  getAudioTracks = () => [];
};

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const clientFor = (credential) =>
  createDecartClient({
    apiKey: credential,
    baseUrl: gateway,
    realtimeBaseUrl: gateway.replace(/^http/, "ws"),
    telemetry: false,
    logger: silent,
  });

const mint = async (credential, options) => {
  try {
    return await clientFor(credential).tokens.create(options);
  } catch (error) {
    return { refused: error.data?.status ?? String(error), message: error.message };
  }
};

// The socket the client dials with: `ws`, which says which Origin it comes from as a browser would, and keeps count.
// A refused client would dial six times in 25 seconds; after `most` dials it is told, in words it takes as final, that
// it is enough.
const dialler = (origin, most, dials) =>
  class extends NodeWebSocket {
    constructor(url) {
      if (dials.length >= most) throw new Error("not allowed: the test has seen enough");
      super(url, { origin });
      const dial = {};
      dials.push(dial);
      this.on("open", () => Object.assign(dial, { open: true }));
      this.on("error", (error) => Object.assign(dial, { refused: Number(/\d{3}/.exec(error.message)?.[0]) }));
    }
  };

const connect = async (credential, model, origin, most = 1) => {
  const dials = [];
  globalThis.WebSocket = dialler(origin, most, dials);
  try {
    const options = { model: models.realtime(model), onRemoteStream() {} };
    const session = await clientFor(credential).realtime.connect(null, options);
    await session.setPrompt("a field of sunflowers");
    const found = { dials, state: session.getConnectionState(), session: session.sessionId };
    session.disconnect();
    return found;
  } catch (error) {
    return { dials, failed: error.message };
  }
};

setTimeout(() => process.exit(1), 60_000).unref();
const found = {};
const wish = {
  expiresIn: 120,
  allowedModels: [MODEL],
  allowedOrigins: [ORIGIN],
  constraints: { realtime: { maxSessionDuration: 60 } },
};
found.mint = await mint(apiKey, wish);
found.plain = await mint(apiKey);
found.tooLong = await mint(apiKey, { expiresIn: 999999 });
found.stranger = await mint("dct_nobody-has-this-key-0000");
found.fromToken = await mint(found.mint.apiKey);

found.opaque = await connect(found.mint.apiKey, MODEL, ORIGIN);
found.jwt = await connect(found.mint.token, MODEL, ORIGIN);
found.wrongModel = await connect(found.mint.apiKey, OTHER_MODEL, ORIGIN, 2);
found.wrongOrigin = await connect(found.mint.apiKey, MODEL, "https://elsewhere.example");
found.noOrigin = await connect(found.mint.apiKey, MODEL, undefined);
found.noToken = await connect("ek_nothing", MODEL, ORIGIN);

console.log(JSON.stringify(found));
process.exit(0);
