// What examples/relay.rs does, on the reference server.
//
//     npm install && node relay.mjs 3000
import { Server } from "socket.io";

const io = new Server(Number(process.argv[2] ?? 3000), { perMessageDeflate: false, maxHttpBufferSize: 100 << 20 });
io.on("connection", (socket) => {
  socket.on("pub", (message, room) => (room ? io.to(room) : io).emit("msg", message));
  socket.on("join", (room) => socket.join(room));
  socket.on("leave", (room) => socket.leave(room));
});
console.log("ready");
