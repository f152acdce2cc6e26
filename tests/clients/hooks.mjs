// Where the driver's imports come from: the published clients from the folder that set-up filled, and in place of the
// media library (a browser's, with WebRTC) one that connects to nothing. The client itself is loaded as published.
import { pathToFileURL } from "node:url";

let clients;

export async function initialize(folder) {
  clients = pathToFileURL(`${folder}/`).href;
}

export async function resolve(specifier, context, next) {
  if (specifier === "livekit-client") return next(new URL("livekit-client.mjs", import.meta.url).href, context);
  const isPackage = !/^(node:|file:|data:|[./])/.test(specifier);
  const isOurs = !context.parentURL?.includes("/node_modules/");
  return next(specifier, isPackage && isOurs ? { ...context, parentURL: clients } : context);
}
