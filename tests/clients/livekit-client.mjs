// Stands in for `livekit-client`: media goes past the gateway and is no part of the test.
export class Room {
  localParticipant = { videoTrackPublications: new Map(), publishTrack: async () => {} };
  on() {
    return this;
  }
  off() {
    return this;
  }
  async connect() {}
  async disconnect() {}
}

export const RoomEvent = { TrackSubscribed: "trackSubscribed", Disconnected: "disconnected" };
export const Track = { Source: { Camera: "camera" } };
export const ConnectionState = { Connected: "connected", Disconnected: "disconnected" };
