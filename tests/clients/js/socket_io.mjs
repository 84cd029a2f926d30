// The official JavaScript client over one transport (FANFARE_TRANSPORT), against profile `kit`.
import "./events.mjs";
import "./namespaces.mjs";
import "./rooms.mjs";
import "./order.mjs";
import "./endings.mjs";
